"""Where pairs and their queries lie in a row: pairs first, queries at least `gap` later."""

import itertools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from dsa.data.task import Rows, places


class Layout(NamedTuple):
    """A row's geometry: `pairs` of two tokens in its first part, as many queries of `width` tokens in its last.

    A query at t lies `gap` or more positions after its pair's second token, for every pair: the nearest `gap`
    keys of the query (itself included) hold nothing of it. Amid the pairs lie `others`, as wide as a pair and never
    asked for. The room left over is halved between both parts.
    """

    seq_len: int
    pairs: int
    gap: int
    width: int
    others: int = 0

    @property
    def room(self) -> int:
        """Positions left over for noise inside both parts [tokens]; negative where the row is too short."""
        return self.seq_len - (2 + self.width) * self.pairs - 2 * self.others - (self.gap - 1)

    def draw(self, rows: int, rng: np.random.Generator) -> tuple[Rows, Rows]:
        """Positions of the first tokens of pairs and others, and of the queries; pair i is asked for at query i."""
        end = 2 * (self.pairs + self.others) + self.room // 2
        queries = places(rows, self.pairs, self.width, end - 1 + self.gap, self.seq_len, rng)
        pairs = places(rows, self.pairs + self.others, 2, 0, end, rng)
        return rng.permuted(pairs, axis=1), queries

    def check(self, at: "Callable[[int], Layout]") -> None:
        """Raises ValueError where the row is too short.

        Args:
            at: the layout at another length.
        """
        if self.room < 0:
            fits = next(length for length in itertools.count(self.seq_len + 1) if at(length).room >= 0)
            amid = f", amid {self.others} decoys and strays," if self.others else ""
            raise ValueError(
                f"data.pairs = {self.pairs}{amid} and data.gap = {self.gap}: they need {self.seq_len - self.room} "
                f"tokens, but seq_len = {self.seq_len}; the next length that fits is {fits}. Give it, or fewer of them "
                "and a smaller gap; null scales all with seq_len."
            )


def scaled(pairs: int | None, gap: int | None, seq_len: int, most: int, width: int) -> Layout:
    """The layout for `seq_len`: pairs null is seq_len / 16 (1 to `most`), gap null is 3 seq_len / 8."""
    return Layout(
        seq_len,
        min(max(1, seq_len // 16), most) if pairs is None else pairs,
        max(1, 3 * seq_len // 8) if gap is None else gap,
        width,
    )
