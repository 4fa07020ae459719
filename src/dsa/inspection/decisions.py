"""What a pattern that chooses gave each query, and what an indexer that picks gave each row."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dsa.backbones import Observation


@dataclass(frozen=True)
class Decision:
    """How often each of several was taken, in one layer.

    Args:
        what: of what one was taken: pattern, or indexer.
        names: of those that could be.
        labels: of the queries or rows that got one.
        counts: how many of them got which.
    """

    what: str
    names: tuple[str, ...]
    labels: list[str]
    counts: Float[Tensor, "group label entry"]

    def __add__(self, other: "Decision") -> "Decision":
        return Decision(self.what, self.names, self.labels, self.counts + other.counts)

    def row(self) -> dict[str, Any]:
        """For each group of heads the share that each has of all, and of each label that was there."""
        return {
            "what": self.what,
            "names": list(self.names),
            "groups": [
                {
                    "every": self.shares(parts.sum(0)),
                    "labels": {
                        label: self.shares(part) for label, part in zip(self.labels, parts, strict=True) if part.sum()
                    },
                }
                for parts in self.counts
            ],
        }

    def shares(self, counts: Float[Tensor, "entry"]) -> dict[str, float]:
        """Of each name its share."""
        return dict(zip(self.names, (counts / counts.sum()).tolist(), strict=True))


def decisions(seen: Observation, kind: Int[Tensor, "time"], kinds: list[str]) -> list[Decision]:
    """What one layer decided in one row.

    Args:
        kind: of each token, an index of `kinds`.
    """
    found = []
    if seen.choice is not None:
        counts = counted(seen.choice.entry[0], kind, (len(kinds), len(seen.choice.names)))
        found.append(Decision("pattern", seen.choice.names, kinds, counts))
    if (picked := seen.picked) is not None:
        counts = counted(picked.entry[:, None], torch.zeros_like(picked.entry), (1, len(picked.names)))
        found.append(Decision("indexer", picked.names, ["rows"], counts))
    return found


def counted(
    entry: Int[Tensor, "group query"], label: Int[Tensor, "query"], sizes: tuple[int, int]
) -> Float[Tensor, "group label entry"]:
    """How many queries of each label have which entry."""
    flat = label * sizes[1] + entry
    return torch.stack([group.bincount(minlength=sizes[0] * sizes[1]).view(sizes) for group in flat]).double()
