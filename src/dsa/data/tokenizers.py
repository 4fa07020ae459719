"""Text to tokens and back. In both tokenisers the character NUL is the token that ends a document."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from tokenizers import Tokenizer as Engine
from tokenizers import decoders, models, pre_tokenizers, trainers

from dsa.checks import at_least
from dsa.data.text import Tokenizer

END = "\0"


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


class BPETokenizer(Tokenizer):
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

    def state(self) -> str:
        """What was learned, as JSON."""
        return self.engine.to_str()

    def restore(self, state: str) -> None:
        """Takes over what `state` gave."""
        self.engine = Engine.from_str(state)
        self.vocab_size = self.engine.get_vocab_size()

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """One array of tokens per text."""
        batches = (list(texts[i : i + 256]) for i in range(0, len(texts), 256))
        return [np.array(c.ids, np.uint32) for batch in batches for c in self.engine.encode_batch_fast(batch)]

    def decode(self, tokens: Sequence[int]) -> str:
        """The text."""
        return self.engine.decode(list(tokens), skip_special_tokens=False)
