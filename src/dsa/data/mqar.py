"""Multi-query associative recall: the task that tells a selection by content from one by position."""

import numpy as np

from dsa.checks import null_or_positive
from dsa.data.batch import Batch
from dsa.data.key_value import KeyValue
from dsa.data.layout import Layout, scaled
from dsa.data.task import asked, distinct


class MQAR(KeyValue):
    """Key-value pairs amid noise, each key asked once, later (Zoology, arXiv:2312.04927, section 3).

    Tokens: `keys`, then `values`, then `noise`, each a range of its own. A row's keys are distinct, its values
    drawn freely. Unlike Zoology's, pairs lie at random places and not side by side, so that no fixed set of
    positions answers; the distance to the query has a lower bound, so that no window does; and amid them lie pairs
    that nobody asks for and values without a key, so that "this is a value" does not answer either.

    Args:
        pairs: pairs per row; None: seq_len / 16, at most what `keys` allow.
        decoys: further pairs, never asked for; None: as many as pairs.
        strays: values behind noise instead of a key; None: as many as pairs.
        gap: least distance from a pair's value to its query [tokens]; None: 3 seq_len / 8.
        keys, values, noise: tokens of each kind.
    """

    def __init__(
        self,
        pairs: int | None = None,
        decoys: int | None = None,
        strays: int | None = None,
        gap: int | None = None,
        keys: int = 64,
        values: int = 64,
        noise: int = 64,
    ) -> None:
        self.pairs = null_or_positive(pairs, "data.pairs", "null follows seq_len; a row needs something to recall")
        super().__init__(decoys, strays, gap, keys, values, noise, pairs=pairs)

    def others(self, pairs: int) -> tuple[int, int]:
        """Decoys and strays beside so many pairs."""
        decoys, strays = (pairs if value is None else value for value in (self.decoys, self.strays))
        return decoys, strays

    def layout(self, seq_len: int) -> Layout:
        """Pairs, what lies amid them, and the gap at this length."""
        most = self.keys // 2 if self.decoys is None else self.keys - self.decoys
        plain = scaled(self.pairs, self.gap, seq_len, most=max(1, most), width=1)
        return plain._replace(others=sum(self.others(plain.pairs)))

    def pairs_in(self, seq_len: int) -> int:
        return self.layout(seq_len).pairs

    def check(self, seq_len: int) -> None:
        layout = self.layout(seq_len)
        layout.check(self.layout)
        pairs, (decoys, _) = layout.pairs, self.others(layout.pairs)
        if pairs + decoys > self.keys:
            raise ValueError(
                f"data.pairs = {pairs} and data.decoys = {decoys}: a row's keys are distinct, and there are "
                f"{self.keys}. Give at most {self.keys} together, or a larger data.source.keys."
            )

    def sample(self, rows: int, seq_len: int, rng: np.random.Generator) -> Batch:
        layout = self.layout(seq_len)
        places, queries = layout.draw(rows, rng)
        pairs, (decoys, _) = layout.pairs, self.others(layout.pairs)
        keys = distinct(rows, pairs + decoys, self.keys, rng)
        values = self.keys + rng.integers(self.values, size=places.shape)
        tokens = self.keys + self.values + rng.integers(self.noise, size=(rows, seq_len))
        np.put_along_axis(tokens, places[:, : pairs + decoys], keys, axis=1)
        np.put_along_axis(tokens, places + 1, values, axis=1)
        np.put_along_axis(tokens, queries, keys[:, :pairs], axis=1)
        return asked(tokens, queries, values[:, :pairs])
