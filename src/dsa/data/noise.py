"""The negative control: nothing can be learned."""

import numpy as np
import torch

from dsa.checks import at_least
from dsa.data.batch import Batch
from dsa.data.task import Task


class Noise(Task):
    """Random tokens with random targets that have nothing to do with them; no loss below ln(vocab) is honest.

    Args:
        vocab: tokens.
    """

    def __init__(self, vocab: int = 256) -> None:
        self.vocab = at_least(vocab, 2, "data.source.vocab", "one token alone is not random")
        super().__init__(vocab, vocab, vocab=vocab)

    def check(self, seq_len: int) -> None:
        """Every length will do."""

    def sample(self, rows: int, seq_len: int, rng: np.random.Generator) -> Batch:
        tokens, targets = rng.integers(self.vocab, size=(2, rows, seq_len))
        return Batch(torch.from_numpy(tokens), torch.from_numpy(targets))
