"""Attention and keys counted by a label that each (query, key) pair has: its distance, or what kind of key it is."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dsa.inspection.query_blocks import QueryBlock


@dataclass(frozen=True)
class Tally:
    """Sums over contested queries, by label; groups averaged.

    Args:
        attention: dense probability on the keys of a label.
        captured: the part of it on selected keys.
        best: keys that are among those of highest attention.
        found: those of them that were selected.
        kept: selected keys.
        queries: contested queries, over which `attention` sums to one each.
    """

    attention: Float[Tensor, "label"]
    captured: Float[Tensor, "label"]
    best: Float[Tensor, "label"]
    found: Float[Tensor, "label"]
    kept: Float[Tensor, "label"]
    queries: float

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(*(mine + theirs for mine, theirs in zip(vars(self).values(), vars(other).values(), strict=True)))

    def rows(self, names: list[str]) -> list[dict[str, float | str | None]]:
        """Per label: share of all attention, share of it captured, share of all that was missed, recall, share of
        the selected keys."""
        missed = self.attention - self.captured
        return [
            {
                "name": name,
                "attention": ratio(self.attention[i], self.queries),
                "captured": ratio(self.captured[i], self.attention[i]),
                "missed": ratio(missed[i], missed.sum()),
                "recall": ratio(self.found[i], self.best[i]),
                "kept": ratio(self.kept[i], self.kept.sum()),
            }
            for i, name in enumerate(names)
        ]


def ratio(part: Tensor | float, whole: Tensor | float) -> float | None:
    """A share; None of nothing."""
    return float(part) / float(whole) if float(whole) > 0 else None


def tally(block: QueryBlock, labels: Int[Tensor, "query key"], count: int) -> Tally:
    """Sums over a block's contested queries.

    Args:
        labels: 0 ... count - 1.
    """
    inside = block.contested[..., None]
    flat = labels.flatten()

    def sums(values: Tensor) -> Float[Tensor, "label"]:
        mean = (values * inside).double().mean(0).flatten()
        return torch.zeros(count, dtype=torch.float64, device=flat.device).index_add_(0, flat, mean)

    return Tally(
        attention=sums(block.attention),
        captured=sums(block.attention * block.kept),
        best=sums(block.best),
        found=sums(block.best & block.kept),
        kept=sums(block.kept),
        queries=float(block.contested.sum()) / len(block.attention),
    )


def distances(block: QueryBlock) -> Int[Tensor, "query key"]:
    """The bin of each pair's distance: 0 tokens, 1, 2-3, 4-7, ... Later keys, which count for nothing, get 0."""
    queries, keys = block.attention.shape[1:]
    position = torch.arange(block.first, block.first + queries, device=block.attention.device)
    distance = (position[:, None] - torch.arange(keys, device=position.device)).clamp(min=0)
    return torch.where(distance > 0, distance.clamp(min=1).double().log2().floor().long() + 1, 0)


def distance_names(length: int) -> list[str]:
    """Names of the bins of a row of `length` tokens."""
    bins = 1 + (1 + int(math.log2(length - 1)) if length > 1 else 0)
    bounds = [(2**i, min(2 ** (i + 1) - 1, length - 1)) for i in range(bins - 1)]
    return ["0", *(f"{low}" if low == high else f"{low}–{high}" for low, high in bounds)]
