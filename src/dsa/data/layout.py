"""Where pairs and their queries lie in a row: pairs first, queries at least `gap` later."""

from typing import NamedTuple

import numpy as np

from dsa.data.task import Rows, places


class Layout(NamedTuple):
    """A row's geometry: `pairs` of two tokens in its first part, as many queries of `width` tokens in its last.

    A query at t lies `gap` or more positions after its pair's second token, for every pair: the nearest `gap`
    keys of the query (itself included) hold nothing of it. The room left over is halved between both parts.
    """

    seq_len: int
    pairs: int
    gap: int
    width: int

    @property
    def room(self) -> int:
        """Positions left over for noise inside both parts [tokens]; negative where the row is too short."""
        return self.seq_len - (2 + self.width) * self.pairs - (self.gap - 1)

    def draw(self, rows: int, rng: np.random.Generator) -> tuple[Rows, Rows]:
        """Positions of the pairs' first tokens, and of the queries; pair i is asked for at query i."""
        end = 2 * self.pairs + self.room // 2
        queries = places(rows, self.pairs, self.width, end - 1 + self.gap, self.seq_len, rng)
        return places(rows, self.pairs, 2, 0, end, rng), rng.permuted(queries, axis=1)

    def check(self) -> None:
        """Raises ValueError where the row is too short."""
        if self.room < 0:
            raise ValueError(
                f"data.pairs = {self.pairs} and data.gap = {self.gap}: they need {self.seq_len - self.room} tokens, "
                f"but seq_len = {self.seq_len}. Give fewer pairs, a smaller gap or a longer seq_len; "
                "null scales both with seq_len."
            )


def scaled(pairs: int | None, gap: int | None, seq_len: int, most: int, width: int) -> Layout:
    """The layout for `seq_len`: pairs null is seq_len / 16 (1 to `most`), gap null is 3 seq_len / 8."""
    return Layout(
        seq_len,
        min(max(1, seq_len // 16), most) if pairs is None else pairs,
        max(1, 3 * seq_len // 8) if gap is None else gap,
        width,
    )
