"""What a model is fed, and what can make it."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor

IGNORE = -100  # torch's cross_entropy leaves such targets out by default


class Batch(NamedTuple):
    """Rows of tokens and what the logits at each position should predict.

    Args:
        tokens: the inputs, int64.
        targets: int64; IGNORE where nothing is asked.
        slice: positions of the recall slice (see RecallSlice); None in training and for tasks.
        depth: where what answers lies in each row, from 0, the earliest place, to 1, the latest; None where rows have
            no answer of their own.
    """

    tokens: Int[Tensor, "batch time"]
    targets: Int[Tensor, "batch time"]
    slice: Bool[Tensor, "batch time"] | None = None
    depth: Float[Tensor, "batch"] | None = None


@runtime_checkable
class Source(Protocol):
    """Where rows come from: a text or a task. It knows nothing of seeds, stages and steps."""

    vocab_size: int
    fingerprint: str  # hash of all in the source that shapes the rows
    description: str  # for people: "stdlib bytes"
    chance_loss: float  # ln(number of possible answers) [nats]
    unigram_loss: float  # loss of the best constant prediction [nats/token]

    def check(self, seq_len: int) -> None:
        """Raises ValueError where rows of this length cannot be made."""

    def sample(self, rows: int, seq_len: int, rng: np.random.Generator) -> Batch:
        """Training rows, drawn with `rng` alone."""

    def evaluation(self, rows: int, seq_len: int) -> Batch:
        """The fixed evaluation rows."""

    @classmethod
    def pairs_at(cls, settings: Mapping[str, Any], seq_len: int) -> int | None:
        """How many pairs a row asks for, told by its settings alone; None where rows hold none, as those of a text."""
        return None
