"""Multi-query associative recall: the task that tells a selection by content from one by position."""

import numpy as np

from dsa.checks import at_least, null_or_positive
from dsa.data.batch import Batch
from dsa.data.layout import Layout, scaled
from dsa.data.task import Task, asked, distinct


class MQAR(Task):
    """Key-value pairs amid noise, each key asked once, later (Zoology, arXiv:2312.04927, section 3).

    Tokens: `keys`, then `values`, then `noise`, each a range of its own. A row's keys are distinct, its values
    drawn freely. Unlike Zoology's, pairs lie at random places and not side by side, so that no fixed set of
    positions answers; and the distance to the query has a lower bound, so that no window does.

    Args:
        pairs: pairs per row; None: seq_len / 16, at most `keys`.
        gap: least distance from a pair's value to its query [tokens]; None: 3 seq_len / 8.
        keys, values, noise: tokens of each kind.
    """

    def __init__(
        self,
        pairs: int | None = None,
        gap: int | None = None,
        keys: int = 64,
        values: int = 64,
        noise: int = 64,
    ) -> None:
        self.keys = at_least(keys, 1, "data.source.keys", "a pair needs a key")
        self.values = at_least(values, 2, "data.source.values", "a single value leaves nothing to recall")
        self.noise = at_least(noise, 1, "data.source.noise", "noise fills the row")
        self.pairs = null_or_positive(pairs, "data.pairs", "null follows seq_len; a row needs something to recall")
        self.gap = null_or_positive(gap, "data.gap", "null follows seq_len; a pair comes before its query")
        super().__init__(keys + values + noise, values, pairs=pairs, gap=gap, keys=keys, values=values, noise=noise)

    def layout(self, seq_len: int) -> Layout:
        """Pairs and gap at this length."""
        return scaled(self.pairs, self.gap, seq_len, most=self.keys, width=1)

    def check(self, seq_len: int) -> None:
        layout = self.layout(seq_len)
        layout.check()
        if layout.pairs > self.keys:
            raise ValueError(
                f"data.pairs = {layout.pairs}: a row's keys are distinct, and there are {self.keys}. "
                f"Give at most {self.keys}, or a larger data.source.keys."
            )

    def sample(self, rows: int, seq_len: int, rng: np.random.Generator) -> Batch:
        layout = self.layout(seq_len)
        pairs, queries = layout.draw(rows, rng)
        keys = distinct(rows, layout.pairs, self.keys, rng)
        values = self.keys + rng.integers(self.values, size=keys.shape)
        tokens = self.keys + self.values + rng.integers(self.noise, size=(rows, seq_len))
        np.put_along_axis(tokens, pairs, keys, axis=1)
        np.put_along_axis(tokens, pairs + 1, values, axis=1)
        np.put_along_axis(tokens, queries, keys, axis=1)
        return asked(tokens, queries, values)
