"""Text to tokens and back."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer as Engine
from tokenizers import decoders, models, pre_tokenizers, trainers

from dsa.checks import at_least
from dsa.data.hashing import digest
from dsa.data.text import Tokenizer
from dsa.pretrained.files import files_of

END = "\0"
"""The token that ends a document, in bytes and in the BPE that is trained here."""


class ByteTokenizer(Tokenizer):
    """UTF-8 bytes: 256 tokens, nothing to train."""

    description = "bytes"
    vocab_size = 256
    end = 0

    def settings(self) -> str:
        """Names what it would do to any text."""
        return "bytes"

    def fit(self, texts: Sequence[str]) -> None:
        """Nothing to learn."""

    def state(self) -> str:
        """Nothing learned."""
        return ""

    def restore(self, state: str) -> None:
        """Nothing to restore."""

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """One array of tokens per text."""
        return [np.frombuffer(text.encode(errors="replace"), np.uint8) for text in texts]

    def decode(self, tokens: Sequence[int]) -> str:
        """The text; bytes that are no UTF-8 become U+FFFD."""
        return bytes(tokens).decode(errors="replace")


def engine_of(state: str) -> Engine:
    """A tokeniser from its JSON, without the cutting and padding of texts that it may have been saved with."""
    engine = Engine.from_str(state)
    engine.no_truncation()
    engine.no_padding()
    return engine


class EngineTokenizer(Tokenizer):
    """A tokeniser of the library `tokenizers`, whose file says all of it."""

    engine: Engine

    def state(self) -> str:
        """The whole tokeniser, as JSON."""
        return self.engine.to_str()

    def restore(self, state: str) -> None:
        """Takes over what `state` gave."""
        self.engine = engine_of(state)
        self.vocab_size = self.engine.get_vocab_size()

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """One array of tokens per text, without marks of its beginning or end."""
        batches = (list(texts[i : i + 256]) for i in range(0, len(texts), 256))
        return [
            np.array(coded.ids, np.uint32)
            for batch in batches
            for coded in self.engine.encode_batch_fast(batch, add_special_tokens=False)
        ]

    def decode(self, tokens: Sequence[int]) -> str:
        """The text."""
        return self.engine.decode(list(tokens), skip_special_tokens=False)


class BPETokenizer(EngineTokenizer):
    """Byte-level byte-pair encoding (GPT-2's), trained on the training part alone; any text round-trips.

    Args:
        vocab_size: tokens in all, the 256 bytes and the end of a document among them; a short text may give fewer.
    """

    end = 0

    @classmethod
    def called(cls, settings: Mapping[str, Any]) -> str:
        """By its size, as bpe2048."""
        return f"bpe{settings.get('vocab_size')}"

    def __init__(self, vocab_size: int) -> None:
        self.wanted = at_least(vocab_size, 257, "data.source.tokenizer.vocab_size", "256 bytes and an end come first")
        self.vocab_size = self.wanted
        self.description = self.called({"vocab_size": vocab_size})

    def settings(self) -> str:
        """Names what it would do to any text, once trained on it."""
        return f"byte-level bpe {self.wanted}"

    def fit(self, texts: Sequence[str]) -> None:
        """Learns the merges."""
        engine = Engine(models.BPE())
        engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        engine.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=self.wanted, special_tokens=[END], initial_alphabet=alphabet, show_progress=False
        )
        engine.train_from_iterator(texts, trainer)
        self.restore(engine.to_str())


class ModelTokenizer(EngineTokenizer):
    """The tokeniser that a pretrained model was trained with; its end-of-text token ends a document.

    Tokens that were added to its vocabulary later count where a text holds them: a model need not have rows for others.

    Args:
        path: of the model: a folder, a GGUF file, or a name on the hub.

    Raises:
        ValueError: the model has no tokenizer.json or a damaged one, or names no end of a text.
    """

    def __init__(self, path: str) -> None:
        folder = files_of(path)
        file = folder / "tokenizer.json"
        if not file.is_file():
            raise ValueError(
                f"data: the model {path} has no tokenizer.json. Save it by "
                "AutoTokenizer.from_pretrained(...).save_pretrained(folder) of transformers."
            )
        try:
            self.own = file.read_text(encoding="utf-8")
            self.restore(self.own)
        except Exception as error:  # the library raises no kind of its own
            raise ValueError(f"data: tokenizer.json of the model {path} cannot be read ({error}).") from error
        self.end = end_of_text(folder, path)
        self.description = f"read by {folder.name}'s tokenizer"

    def restore(self, state: str) -> None:
        """Takes over what `state` gave."""
        self.engine = engine_of(state)
        self.plain, self.vocab_size = (1 + max(self.engine.get_vocab(added).values()) for added in (False, True))

    def reach(self, largest: int) -> int:
        """One past the largest token: of the vocabulary, of the text or its end."""
        return 1 + max(self.plain - 1, largest, self.end)

    def settings(self) -> str:
        """Names what it does to any text."""
        return f"tokenizer {digest(self.own)} {self.end}"

    def fit(self, texts: Sequence[str]) -> None:
        """Nothing to learn."""


def end_of_text(folder: Path, path: str) -> int:
    """The token that ends a text, as the model's configuration says.

    Raises:
        ValueError: it does not say.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    found = config.get("eos_token_id", config.get("text_config", {}).get("eos_token_id"))
    first = found[0] if isinstance(found, list) and found else found
    if not isinstance(first, int):
        raise ValueError(f"data: config.json of the model {path} names no end of a text (eos_token_id).")
    return first
