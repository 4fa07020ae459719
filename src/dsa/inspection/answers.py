"""Where a task asks for what followed the same token before: whether the selection keeps the place of the answer."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from dsa.data import IGNORE
from dsa.inspection.query_blocks import QueryBlock
from dsa.inspection.tally import ratio


@dataclass(frozen=True)
class Answers:
    """Sums over the queries that are asked and whose answer stands in the row; groups averaged.

    Args:
        attention: dense probability on the keys that hold the answer.
        kept: queries that selected such a key.
        best: queries for which such a key is among those of highest attention.
    """

    queries: float = 0.0
    attention: float = 0.0
    kept: float = 0.0
    best: float = 0.0

    def __add__(self, other: "Answers") -> "Answers":
        return Answers(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))

    def row(self) -> dict[str, float | None]:
        """Per asked query: attention on the answer, and the share of queries that kept it, or would at best."""
        return {
            "queries": self.queries,
            "attention": ratio(self.attention, self.queries),
            "kept": ratio(self.kept, self.queries),
            "best": ratio(self.best, self.queries),
        }


def places(tokens: Int[Tensor, "time"], targets: Int[Tensor, "time"], rows: slice) -> Bool[Tensor, "query key"]:
    """Keys that hold a query's target right after an earlier occurrence of the query's own token."""
    before = torch.cat([tokens.new_full((1,), IGNORE), tokens[:-1]])
    query, target = tokens[rows, None], targets[rows, None]
    earlier = torch.arange(len(tokens)) < torch.arange(rows.start, rows.stop)[:, None]
    return (tokens == target) & (before == query) & earlier & (target != IGNORE)


def answers(block: QueryBlock, tokens: Int[Tensor, "time"], targets: Int[Tensor, "time"]) -> Answers:
    """Over a block's contested queries."""
    groups, queries = block.attention.shape[:2]
    holds = places(tokens, targets, slice(block.first, block.first + queries)) & block.contested[..., None]
    return Answers(
        queries=float(holds.any(-1).sum()) / groups,
        attention=float((block.attention * holds).sum()) / groups,
        kept=float((block.kept & holds).any(-1).sum()) / groups,
        best=float((block.best & holds).any(-1).sum()) / groups,
    )
