"""A text as a source of rows: tokenised once, cut anywhere for training, evenly for evaluation."""

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch

from dsa.cache_folder import cache_folder
from dsa.data.batch import Batch, Source
from dsa.data.cache import Tokens, cached, content_hash
from dsa.data.hashing import digest
from dsa.data.recall_slice import RecallSlice
from dsa.data.split import Texts

log = logging.getLogger("dsa.data")


@runtime_checkable
class Corpus(Protocol):
    """Documents, already split."""

    description: str

    @classmethod
    def called(cls, settings: Mapping[str, Any]) -> str | None:
        """What runs on it are called by in names and tables, by its settings; None: by the option of `data`."""
        return None

    def key(self) -> str:
        """What the tokens are cached under: changes whenever the texts do."""

    def texts(self) -> Texts:
        """The documents by use; only called where the cache has none of them."""


@runtime_checkable
class Tokenizer(Protocol):
    """Text to tokens. `fit` sees the training part alone; `state` and `restore` carry what it learned."""

    description: str
    vocab_size: int
    end: int  # the token put after each document

    @classmethod
    def called(cls, settings: Mapping[str, Any]) -> str | None:
        """What is added to the name of a text that is read through it; None: nothing."""
        return None

    def reach(self, largest: int) -> int:
        """One past the largest token that rows of a text may hold, whose own largest is given: all that there are."""
        return self.vocab_size

    def settings(self) -> str: ...
    def fit(self, texts: Sequence[str]) -> None: ...
    def state(self) -> str: ...
    def restore(self, state: str) -> None: ...
    def encode(self, texts: Sequence[str]) -> list[np.ndarray]: ...
    def decode(self, tokens: Sequence[int]) -> str: ...


class TextSource(Source):
    """Rows of a corpus's tokens, each document followed by the tokeniser's end token.

    Training rows begin anywhere in the training part and may span documents. Evaluation rows are evenly spaced
    over the validation part, the same for every seed; they overlap where it is short. Every position is asked.

    Args:
        corpus: the documents.
        tokenizer: text to tokens.
        recall_slice: marks evaluation targets that only a long memory predicts; None: none are marked.
        cache_dir: folder for tokenised text; None: $XDG_CACHE_HOME/dsa or ~/.cache/dsa.
    """

    def __init__(
        self,
        corpus: Corpus,
        tokenizer: Tokenizer,
        recall_slice: RecallSlice | None = None,
        cache_dir: str | None = None,
    ) -> None:
        tokens = tokenised(corpus, tokenizer, cache_dir)
        self.tokenizer = tokenizer
        self.recall_slice = recall_slice
        self.train, self.validation = tokens.train, tokens.validation
        self.counts = tokens.counts
        self.vocab_size = tokenizer.reach(tokens.largest)
        self.description = f"{corpus.description} {tokenizer.description}"
        self.fingerprint = digest(
            tokens.content, tokenizer.settings(), recall_slice and (recall_slice.ngram, recall_slice.window)
        )
        self.chance_loss = math.log(tokenizer.vocab_size)
        self.unigram_loss = unigram_loss(self.train, self.validation, tokenizer.vocab_size)
        log.info(
            "%s: %s training and %s validation tokens (%d and %d documents), fingerprint %s",
            self.description,
            f"{self.counts['train_tokens']:,}",
            f"{self.counts['validation_tokens']:,}",
            self.counts["train_documents"],
            self.counts["validation_documents"],
            self.fingerprint,
        )

    def check(self, seq_len: int) -> None:
        check_length(seq_len, self.description, self.train, self.validation)

    def sample(self, rows: int, seq_len: int, rng: np.random.Generator) -> Batch:
        return anywhere(self.train, rows, seq_len, rng)

    def evaluation(self, rows: int, seq_len: int) -> Batch:
        starts = np.linspace(0, len(self.validation) - seq_len - 1, rows).astype(np.int64)
        pieces = cut(self.validation, starts, seq_len)
        marked = None if self.recall_slice is None else torch.from_numpy(self.recall_slice(pieces))
        return every_token(pieces)._replace(slice=marked)


def anywhere(tokens: np.ndarray, rows: int, seq_len: int, rng: np.random.Generator) -> Batch:
    """Rows of a text from wherever they are drawn; every position is asked."""
    return every_token(cut(tokens, rng.integers(len(tokens) - seq_len, size=rows), seq_len))


def cut(tokens: np.ndarray, starts: np.ndarray, seq_len: int) -> np.ndarray:
    """[rows, seq_len + 1]: a row from each place on, and the token after it."""
    return tokens[starts[:, None] + np.arange(seq_len + 1)].astype(np.int64)


def every_token(rows: np.ndarray) -> Batch:
    """A batch that asks for the next token everywhere."""
    return Batch(torch.from_numpy(rows[:, :-1]), torch.from_numpy(rows[:, 1:]))


def tokenised(corpus: Corpus, tokenizer: Tokenizer, cache_dir: str | None) -> Tokens:
    """Both parts of a text, read from the cache where it is there; the tokeniser then knows what it learned from it."""
    folder = Path(cache_dir).expanduser() if cache_dir else cache_folder()
    tokens = cached(folder, digest(corpus.key(), tokenizer.settings(), size=16), lambda: _tokens(corpus, tokenizer))
    tokenizer.restore(tokens.tokenizer)
    return tokens


def check_length(seq_len: int, description: str, train: np.ndarray, validation: np.ndarray) -> None:
    """Raises ValueError where rows of this length cannot be cut from either part of a text."""
    for name, part in (("training", train), ("validation", validation)):
        if seq_len >= len(part):
            advice = f"at most {len(part) - 1}, or more text" if len(part) > 1 else "more text"
            raise ValueError(
                f"seq_len = {seq_len}: longer than the text ({description}), whose {name} part has "
                f"{len(part)} tokens. Give {advice}."
            )


def unigram_loss(train: np.ndarray, validation: np.ndarray, vocab_size: int) -> float:
    """Loss of predicting every validation token by its frequency in training, add-one smoothed [nats/token]."""
    seen, asked = _histogram(train, vocab_size) + 1, _histogram(validation, vocab_size)
    return float(-(asked * np.log(seen / seen.sum())).sum() / max(1, asked.sum()))


def _histogram(tokens: np.ndarray, vocab_size: int) -> np.ndarray:
    pieces = range(0, len(tokens), 1 << 24)  # bincount copies its input to int64
    return sum(
        (np.bincount(tokens[i : i + (1 << 24)], minlength=vocab_size) for i in pieces), np.zeros(vocab_size, int)
    )


def _tokens(corpus: Corpus, tokenizer: Tokenizer) -> Tokens:
    texts = corpus.texts()
    tokenizer.fit(texts.train)
    train, validation = (_joined(part, tokenizer) for part in texts)
    counts = {
        "train_tokens": len(train),
        "validation_tokens": len(validation),
        "train_documents": len(texts.train),
        "validation_documents": len(texts.validation),
        "train_bytes": sum(len(text.encode(errors="replace")) for text in texts.train),
        "validation_bytes": sum(len(text.encode(errors="replace")) for text in texts.validation),
    }
    return Tokens(train, validation, tokenizer.state(), counts, content_hash(train, validation))


def _joined(texts: Sequence[str], tokenizer: Tokenizer) -> np.ndarray:
    kind = np.min_scalar_type(tokenizer.vocab_size - 1)
    end = np.array([tokenizer.end], kind)
    pieces = (piece for tokens in tokenizer.encode(texts) for piece in (tokens.astype(kind), end))
    return np.concatenate([np.empty(0, kind), *pieces])
