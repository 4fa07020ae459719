"""What the heads of one layer do to its keys in one row: signs, clipped keys, ties, and selections without them."""

from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dsa import ops
from dsa.backbones import Observation
from dsa.inspection.query_blocks import QueryBlock, query_blocks
from dsa.inspection.reweighted import Reweigh, as_it_is, clamped, head, reweighted
from dsa.judging.ties import tied
from dsa.ops import IndexFeatures
from dsa.ops.reference import to_mask

PLACES = ("first token", "itself", "nearest", "far")
"""Of a key: the row's first; the query itself; the nearest others, as many as the query keeps; all the rest."""


class Sums:
    """Shares, as sums of a part and of a whole, by name."""

    def __init__(self) -> None:
        self.parts: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])

    def add(self, name: str, part: Tensor | float, whole: Tensor | float) -> None:
        """Add sums to those under a name."""
        self.parts[name][0] += float(part)
        self.parts[name][1] += float(whole)

    def mean(self, name: str, values: Tensor, where: Bool[Tensor, "..."]) -> None:
        """Add values at some places to a mean."""
        self.add(name, (values * where).double().sum(), where.sum())

    def shares(self) -> dict[str, float | None]:
        """Part over whole by name; None of nothing."""
        return {name: part / whole if whole else None for name, (part, whole) in self.parts.items()}


class Layer:
    """Sums of one layer, of each of its heads and of each place, and the heads' weights [row · query]."""

    def __init__(self) -> None:
        self.own, self.places = Sums(), {name: Sums() for name in PLACES}
        self.heads: dict[int, Sums] = defaultdict(Sums)
        self.weights: dict[int, list[Tensor]] = defaultdict(list)

    def add(self, seen: Observation, asked: Bool[Tensor, "time"]) -> None:
        """Count a row.

        Args:
            seen: of a layer of `weighted_routers`.
            asked: queries that are asked for something.
        """
        features = seen.cast
        assert isinstance(features, IndexFeatures) and features.weights is not None
        numbers = range(features.queries.shape[3])
        ties = tied(seen)
        assert ties is not None
        self.own.add("tied", ties.tied, ties.contested)
        changes: dict[str, Reweigh] = {"clamped": clamped, "absolute": torch.abs}
        for number in numbers:
            self.weights[number].append(features.weights[0, :, :, number].flatten())
            changes |= {
                f"without {number}": head(number, torch.zeros_like),
                f"alone {number}": head(number, as_it_is, torch.zeros_like),
                f"clamped {number}": head(number, clamped),
            }
        kept = {name: kept_by(reweighted(features, to), seen) for name, to in changes.items()}
        for block in query_blocks(seen):
            rows = slice(block.first, block.first + block.contested.shape[1])
            part = Part.of(block, features, asked[rows], {name: mask[:, rows] for name, mask in kept.items()})
            self.count(part)
            for number in numbers:
                count_head(self.heads[number], part, number)
            for name, inside in part.places():
                count_place(self.places[name], part, inside)

    def count(self, part: "Part") -> None:
        """What holds of the layer as a whole."""
        block, own = part.block, part.mass("own")
        some, every = (part.weights < 0).any(0), (part.weights < 0).all(0)
        for ending, where in part.groups_of_queries():
            self.own.mean("mass" + ending, own, where)
            self.own.mean("oracle_mass" + ending, (block.attention * block.best).sum(-1), where)
            self.own.mean("mass_clamped" + ending, part.mass("clamped"), where)
            self.own.mean("mass_absolute" + ending, part.mass("absolute"), where)
            self.own.mean("kl" + ending, part.divergence, where)
            self.own.mean("some_negative" + ending, some, where)
            self.own.mean("all_negative" + ending, every, where)
        self.own.mean("changed", part.let_in.sum(-1) / block.kept.sum(-1), block.contested)
        self.own.add("negative_score", part.negative.sum(), part.positive.sum() + part.negative.sum())


class Part(NamedTuple):
    """Some queries of a layer, against every key.

    Args:
        kept: what is kept with other weights, by what was done to them.
        weights: of the heads; terms: w ReLU(q . k) of each.
        clipped: keys that a head's ReLU clips.
    """

    block: QueryBlock
    asked: Bool[Tensor, "group query"]
    kept: dict[str, Bool[Tensor, "group query key"]]
    earlier: Bool[Tensor, "query key"]
    weights: Float[Tensor, "head group query"]
    terms: Float[Tensor, "head group query key"]
    clipped: Bool[Tensor, "head group query key"]

    @classmethod
    def of(cls, block: QueryBlock, features: IndexFeatures, asked: Tensor, kept: dict[str, Tensor]) -> "Part":
        """Compare what the heads score with the dense attention.

        Args:
            asked: of these queries.
            kept: of the same, with other weights.
        """
        groups, queries, keys = block.attention.shape
        rows = slice(block.first, block.first + queries)
        assert features.weights is not None
        weights = features.weights[0, :, rows].movedim(-1, 0).expand(-1, groups, -1)
        dots = []
        for number in range(len(weights)):
            alone = reweighted(features, head(number, torch.ones_like, torch.zeros_like))
            dots.append(alone.scores(rows, slice(0, keys))[0].expand(groups, -1, -1))
        products = torch.stack(dots)
        earlier = torch.arange(keys) <= torch.arange(rows.start, rows.stop)[:, None]
        return cls(
            block, asked & block.contested, kept | {"own": block.kept}, earlier, weights,
            weights[..., None] * products * earlier, (products == 0) & earlier,
        )  # fmt: skip

    def groups_of_queries(self) -> Iterator[tuple[str, Bool[Tensor, "group query"]]]:
        """All that are contested, and those of them that are asked, with an ending for names."""
        yield "", self.block.contested
        yield "_asked", self.asked

    def mass(self, name: str) -> Float[Tensor, "group query"]:
        """Dense attention on what is kept."""
        return (self.block.attention * self.kept[name]).sum(-1)

    @property
    def positive(self) -> Float[Tensor, "group query key"]:
        """What adds to a key's score, of all heads."""
        return self.terms.clamp(min=0).sum(0)

    @property
    def negative(self) -> Float[Tensor, "group query key"]:
        """What takes from it."""
        return -self.terms.clamp(max=0).sum(0)

    @property
    def let_in(self) -> Bool[Tensor, "group query key"]:
        """Keys that negative weights keep out: those that are selected once they are 0."""
        return self.kept["clamped"] & ~self.kept["own"]

    @property
    def divergence(self) -> Float[Tensor, "group query"]:
        """KL(p || softmax(I)) over all earlier keys [nats]."""
        p = self.block.attention
        given = self.terms.sum(0).masked_fill(~self.earlier, -torch.inf).log_softmax(-1)
        return (torch.special.xlogy(p, p) - torch.where(p > 0, p * given, 0.0)).sum(-1)

    def places(self) -> Iterator[tuple[str, Bool[Tensor, "group query key"]]]:
        """Earlier keys of contested queries, place by place."""
        queries, keys = self.earlier.shape
        distance = torch.arange(self.block.first, self.block.first + queries)[:, None] - torch.arange(keys)
        budget = self.block.kept.sum(-1, keepdim=True)
        inside: Int[Tensor, "group query key"] = torch.where(distance < budget, 2, 3)
        inside = torch.where(distance == 0, 1, inside)
        inside[..., 0] = 0
        for number, name in enumerate(PLACES):
            yield name, (inside == number) & self.earlier & self.block.contested[..., None]


def kept_by(features: IndexFeatures, seen: Observation) -> Bool[Tensor, "group query key"]:
    """The keys of a row that other features choose, as many for each query as were kept."""
    assert seen.selection is not None
    counts = seen.selection.counts.long()
    return to_mask(ops.select(features, seen.zones, counts), counts.shape[-1])[0]


def count_head(sums: Sums, part: Part, number: int) -> None:
    """What holds of one head."""
    block, clipped, term = part.block, part.clipped[number], part.terms[number]
    inside = part.earlier & block.contested[..., None]
    negative, own = part.weights[number] < 0, part.mass("own")
    attended = (block.attention * clipped).sum(-1)
    level = equal_at_the_end(part)
    for ending, where in part.groups_of_queries():
        sums.mean("negative" + ending, negative, where)
        sums.mean("clipped_attention" + ending, attended, where)
        for sign, of_sign in (("_positive", ~negative), ("_negative", negative)):
            sums.mean("mass" + sign + ending, own, where & of_sign)
            sums.mean("clipped_attention" + sign + ending, attended, where & of_sign)
            sums.mean("tied" + sign + ending, level, where & of_sign)
        for name in ("without", "alone", "clamped"):
            sums.mean(f"mass_{name}{ending}", part.mass(f"{name} {number}"), where)
    sums.mean("clipped", clipped, inside.expand_as(clipped))
    sums.mean("clipped_wanted", clipped, block.best & inside)
    sums.add("negative_score", -term.clamp(max=0).sum(), term.abs().sum())
    sums.add("of_all_scores", term.abs().sum(), part.terms.abs().sum())


def equal_at_the_end(part: Part) -> Bool[Tensor, "group query"]:
    """Queries of which some kept key scores no better than the best of all that were left out."""
    scores, kept = part.terms.sum(0), part.kept["own"]
    best = scores.masked_fill(kept | ~part.earlier, -torch.inf).amax(-1)
    return scores.masked_fill(~kept, torch.inf).amin(-1) == best


def count_place(sums: Sums, part: Part, inside: Bool[Tensor, "group query key"]) -> None:
    """How much of everything falls on the keys of one place."""
    block = part.block
    everywhere = part.earlier & block.contested[..., None]
    put_out = part.kept["own"] & ~part.kept["clamped"]
    for name, values in {
        "keys": everywhere, "attention": block.attention, "wanted": block.best, "kept": block.kept,
        "lifted": part.positive, "lowered": part.negative, "let_in": part.let_in, "put_out": put_out,
    }.items():  # fmt: skip
        sums.add(name, (values * inside).double().sum(), (values * everywhere).double().sum())
