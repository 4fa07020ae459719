"""What all generated tasks share: rows are drawn, never stored."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Int

from dsa.data.batch import IGNORE, Batch, Source
from dsa.data.hashing import digest, generator

Rows = Int[np.ndarray, "rows _"]
"""Numbers of each row, any number of them."""


class Task(Source, ABC):
    """A source that draws its rows; its evaluation rows are drawn from a generator of their own.

    Args:
        vocab_size: tokens the rows may hold.
        answers: tokens that may be asked for, all equally likely: chance is ln(answers) [nats].
        settings: all that shapes the rows; they go into the fingerprint.
    """

    def __init__(self, vocab_size: int, answers: int, **settings: int | None) -> None:
        self.vocab_size = vocab_size
        self.description = type(self).__name__.lower()
        self.fingerprint = digest(self.description, vocab_size, answers, sorted(settings.items()))
        self.chance_loss = self.unigram_loss = math.log(answers)

    @abstractmethod
    def check(self, seq_len: int) -> None:
        """Raises ValueError where rows of this length cannot be made."""

    @abstractmethod
    def sample(self, rows: int, seq_len: int, rng: np.random.Generator) -> Batch:
        """Rows of the task, drawn with `rng` alone."""

    def pairs_in(self, seq_len: int) -> int | None:
        """How many pairs a row of this length asks for; None where it asks for none."""
        return None

    @classmethod
    def pairs_at(cls, settings: Mapping[str, Any], seq_len: int) -> int | None:
        return cls(**settings).pairs_in(seq_len)

    def evaluation(self, rows: int, seq_len: int) -> Batch:
        """The same rows for every seed."""
        return self.sample(rows, seq_len, generator("evaluation"))


def asked(
    tokens: Int[np.ndarray, "rows time"],
    positions: Int[np.ndarray, "rows asked"],
    answers: Int[np.ndarray, "rows asked"],
) -> Batch:
    """A batch that asks for `answers` at `positions` and for nothing else."""
    targets = np.full_like(tokens, IGNORE)
    np.put_along_axis(targets, positions, answers, axis=1)
    return Batch(torch.from_numpy(tokens), torch.from_numpy(targets))


def distinct(rows: int, count: int, of: int, rng: np.random.Generator) -> Rows:
    """`count` different numbers below `of` in each row, in random order."""
    return rng.random((rows, of)).argsort(axis=1)[:, :count]


def places(rows: int, count: int, width: int, start: int, stop: int, rng: np.random.Generator) -> Rows:
    """Where `count` stretches of `width` positions begin in [start, stop): apart, sorted, all layouts alike."""
    squeezed = stop - start - count * (width - 1)  # each stretch shrunk to one position
    return start + np.sort(distinct(rows, count, squeezed, rng), axis=1) + np.arange(count) * (width - 1)
