"""One pair in a haystack of noise, asked for at the very end."""

import numpy as np

from dsa.checks import at_least, null_or_positive
from dsa.data.batch import Batch
from dsa.data.task import Task, asked


class Needle(Task):
    """A key-value pair anywhere in noise; the row's last token is the key, its target the value.

    Tokens: `keys`, then `values`, then `noise`, each a range of its own.

    Args:
        gap: least distance from the value to the query [tokens]; None: 3 seq_len / 8.
        keys, values, noise: tokens of each kind.
    """

    def __init__(self, gap: int | None = None, keys: int = 64, values: int = 64, noise: int = 64) -> None:
        self.keys = at_least(keys, 1, "data.source.keys", "a pair needs a key")
        self.values = at_least(values, 2, "data.source.values", "a single value leaves nothing to recall")
        self.noise = at_least(noise, 1, "data.source.noise", "noise fills the row")
        self.gap = null_or_positive(gap, "data.gap", "null follows seq_len; a pair comes before its query")
        super().__init__(keys + values + noise, values, gap=gap, keys=keys, values=values, noise=noise)

    def starts(self, seq_len: int) -> int:
        """Places where the pair can begin, from the row's first token on."""
        gap = max(1, 3 * seq_len // 8) if self.gap is None else self.gap
        return seq_len - gap - 1

    def check(self, seq_len: int) -> None:
        if self.starts(seq_len) < 1:
            raise ValueError(
                f"data.gap = {self.gap}: the gap, a pair before it and its query must fit into seq_len = {seq_len}. "
                f"Give a gap up to {seq_len - 2}, null (3 seq_len / 8), or a longer seq_len."
            )

    def sample(self, rows: int, seq_len: int, rng: np.random.Generator) -> Batch:
        pair = rng.integers(self.starts(seq_len), size=(rows, 1))
        query = np.full_like(pair, seq_len - 1)
        key = rng.integers(self.keys, size=pair.shape)
        value = self.keys + rng.integers(self.values, size=pair.shape)
        tokens = self.keys + self.values + rng.integers(self.noise, size=(rows, seq_len))
        np.put_along_axis(tokens, pair, key, axis=1)
        np.put_along_axis(tokens, pair + 1, value, axis=1)
        np.put_along_axis(tokens, query, key, axis=1)
        return asked(tokens, query, value)
