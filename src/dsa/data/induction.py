"""Induction: what followed this token the last time?"""

import numpy as np

from dsa.checks import at_least, null_or_positive
from dsa.data.batch import Batch
from dsa.data.layout import Layout, scaled
from dsa.data.task import Task, asked, distinct


class Induction(Task):
    """A random sequence in which token pairs A B recur: at the second A the target is B (Olsson et al. 2022).

    The first quarter of the vocabulary are prefixes: a row's A's, each there twice and nowhere else. The rest
    fills the row and follows the prefixes. Unlike in MQAR what is to be recalled looks like the noise around it.

    Args:
        pairs: recurring pairs per row; None: seq_len / 16, at most a quarter of the vocabulary.
        gap: least distance from the first B to the second A [tokens]; None: 3 seq_len / 8.
        vocab: tokens.
    """

    def __init__(self, pairs: int | None = None, gap: int | None = None, vocab: int = 64) -> None:
        at_least(vocab, 4, "data.source.vocab", "a quarter of the tokens are prefixes")
        self.prefixes, self.fillers = vocab // 4, vocab - vocab // 4
        self.pairs = null_or_positive(pairs, "data.pairs", "null follows seq_len; a row needs something that recurs")
        self.gap = null_or_positive(gap, "data.gap", "null follows seq_len; a pair comes before it recurs")
        super().__init__(vocab, self.fillers, pairs=pairs, gap=gap, vocab=vocab)

    def layout(self, seq_len: int) -> Layout:
        """Pairs and gap at this length."""
        return scaled(self.pairs, self.gap, seq_len, most=self.prefixes, width=2)

    def pairs_in(self, seq_len: int) -> int:
        return self.layout(seq_len).pairs

    def check(self, seq_len: int) -> None:
        layout = self.layout(seq_len)
        layout.check(self.layout)
        if layout.pairs > self.prefixes:
            raise ValueError(
                f"data.pairs = {layout.pairs}: a row's prefixes are distinct, and there are {self.prefixes}, a quarter "
                f"of the tokens. Give at most {self.prefixes}, or a larger data.source.vocab."
            )

    def sample(self, rows: int, seq_len: int, rng: np.random.Generator) -> Batch:
        layout = self.layout(seq_len)
        pairs, queries = layout.draw(rows, rng)
        prefixes = distinct(rows, layout.pairs, self.prefixes, rng)
        tokens = self.prefixes + rng.integers(self.fillers, size=(rows, seq_len))
        followers = np.take_along_axis(tokens, pairs + 1, axis=1)
        for start in (pairs, queries):
            np.put_along_axis(tokens, start, prefixes, axis=1)
            np.put_along_axis(tokens, start + 1, followers, axis=1)
        return asked(tokens, queries, followers)
