"""One pair in a haystack of noise, asked for at the very end."""

import numpy as np

from dsa.data.batch import Batch
from dsa.data.key_value import KeyValue
from dsa.data.task import asked, distinct, places


class Needle(KeyValue):
    """A key-value pair anywhere in noise; the row's last token is the key, its target the value.

    Tokens: `keys`, then `values`, then `noise`, each a range of its own. Amid the noise lie pairs of other keys, and
    values without one, so that "this is a value" does not answer.

    Args:
        decoys: further pairs; None: seq_len / 16, at most what `keys` allow.
        strays: values behind noise instead of a key; None: as many as decoys.
        gap: least distance from the value to the query [tokens]; None: 3 seq_len / 8.
        keys, values, noise: tokens of each kind.
    """

    def __init__(
        self,
        decoys: int | None = None,
        strays: int | None = None,
        gap: int | None = None,
        keys: int = 64,
        values: int = 64,
        noise: int = 64,
    ) -> None:
        super().__init__(decoys, strays, gap, keys, values, noise)

    def others(self, seq_len: int) -> tuple[int, int]:
        """Decoys and strays at this length."""
        decoys = min(seq_len // 16, self.keys - 1) if self.decoys is None else self.decoys
        return decoys, decoys if self.strays is None else self.strays

    def pairs_in(self, seq_len: int) -> int:
        return 1

    def stop(self, seq_len: int) -> int:
        """End of the part in which pairs can lie, from the row's first token on."""
        return seq_len - (max(1, 3 * seq_len // 8) if self.gap is None else self.gap)

    def check(self, seq_len: int) -> None:
        decoys, strays = self.others(seq_len)
        if self.stop(seq_len) < 2 * (1 + decoys + strays):
            raise ValueError(
                f"data.gap = {self.gap}: the gap, a pair, {decoys} decoys and {strays} strays before it, and its query "
                f"must fit into seq_len = {seq_len}. Give a smaller gap or null (3 seq_len / 8), fewer of them, or a "
                "longer seq_len."
            )
        if decoys >= self.keys:
            raise ValueError(
                f"data.decoys = {decoys}: the keys of a row are distinct, and there are {self.keys}. "
                f"Give at most {self.keys - 1}, or a larger data.source.keys."
            )

    def sample(self, rows: int, seq_len: int, rng: np.random.Generator) -> Batch:
        decoys, strays = self.others(seq_len)
        starts = rng.permuted(places(rows, 1 + decoys + strays, 2, 0, self.stop(seq_len), rng), axis=1)
        keys = distinct(rows, 1 + decoys, self.keys, rng)
        values = self.keys + rng.integers(self.values, size=starts.shape)
        query = np.full((rows, 1), seq_len - 1)
        tokens = self.keys + self.values + rng.integers(self.noise, size=(rows, seq_len))
        np.put_along_axis(tokens, starts[:, : 1 + decoys], keys, axis=1)
        np.put_along_axis(tokens, starts + 1, values, axis=1)
        np.put_along_axis(tokens, query, keys[:, :1], axis=1)
        return asked(tokens, query, values[:, :1])
