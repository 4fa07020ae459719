"""What can rank keys: an indexer's features, the attention itself, chance, nearness."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int, Int8
from torch import Tensor

from dsa.ops.bands import Band
from dsa.ops.contracts import Scorer, SelectedMass
from dsa.ops.cost import index_pair_flops, scored_pairs
from dsa.ops.scores import hash32, probability_sums, repeated, rounded, scale_of, weighted_dots, wide
from dsa.ops.zones import Zones, by_group

KEY_MARGIN = 80
"""Numbers behind keys whose tokens lie side by side: with such a margin kernels, which read whole vectors of them and
some past the last, take them as they lie. No power of two, so that dims of as many tokens as one do not all meet in one
set of the processor's cache."""


class Integers(NamedTuple):
    """Index features as integers: I[t,s] = scales[s] * sum_j weights[t,j] * activation(queries[t,j] . keys[s]).

    They are from -127 to 127, of at most 1,024 dims: every dot product is exact in float32.

    Args:
        weights: times the scale of their query.
        scales: of the keys, not negative.
    """

    queries: Int8[Tensor, "batch group time head dim"]
    keys: Int8[Tensor, "batch keygroup entry dim"]
    weights: Float[Tensor, "batch group time head"]
    scales: Float[Tensor, "batch keygroup entry"]


class IndexFeatures(NamedTuple):
    """An indexer's answer: enough to score any (query, key), and nothing of size time x keys.

    I[t,s] = sum_j weights[t,j] * activation(queries[t,j] . keys[s])  (DeepSeek-V3.2-Exp report, eq. 1)

    Args:
        keys: one per token, or per unit of `unit` tokens; keygroup divides group, and groups map to keygroups
            contiguously.
        weights: signed and already scaled; None stands for 1.
        pool: "entry": keys are per selectable unit; "max": keys are per token, a unit scores its best token.
        unit: tokens per selectable unit.
        accumulate: format to which the dot product, each weighted term and the sum over heads are rounded.
        held: a format that holds every one of the queries' and keys' numbers exactly.
        forced: keys that are kept whatever the pattern, as a window or the unit that is still open; contiguous zones
            up to the query.
        integers: the same features, if they are integers times scales: what is scored. They carry no gradient, so a
            loss leaves them out.
        bands: what parts of the heads score, one after the other, where not every head scores every key; each keygroup
            then serves all groups, and has a row for each token.
    """

    queries: Float[Tensor, "batch group time head dim"]
    keys: Float[Tensor, "batch keygroup entry dim"]
    weights: Float[Tensor, "batch group time head"] | None = None
    activation: Literal["relu", "none"] = "relu"
    pool: Literal["entry", "max"] = "entry"
    unit: int = 1
    accumulate: torch.dtype = torch.float32
    held: torch.dtype = torch.float32
    forced: Zones = ()
    integers: Integers | None = None
    bands: tuple[Band, ...] = ()

    @property
    def each(self) -> "tuple[IndexFeatures, ...]":
        """Itself, where others are made of several."""
        return (self,)

    def mapped(self, to: "Callable[[IndexFeatures], IndexFeatures]") -> "IndexFeatures":
        """What becomes of them, where others are made of several."""
        return to(self)

    @property
    def groups(self) -> int:
        return self.queries.shape[1]

    @property
    def width(self) -> int:
        return self.queries.shape[3] * (self.unit if self.pool == "max" else 1)

    @property
    def units(self) -> int:
        """How many units there are keys of."""
        return self.keys.shape[2] // (self.unit if self.pool == "max" else 1)

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.queries.shape[0], self.queries.shape[2], self.units

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return tuple(x for x in (self.queries, self.keys, self.weights) if x is not None)

    def scores(
        self, rows: slice, columns: slice, offset: int = 0, device: torch.device | None = None
    ) -> Float[Tensor, "batch group time unit"]:
        if self.bands:
            return self.by_bands(rows, columns, offset)
        pooled = self.unit if self.pool == "max" else 1
        total = self.summed(rows, slice(None), slice(None), slice(columns.start * pooled, columns.stop * pooled))
        return total.unflatten(-1, (-1, pooled)).amax(-1) if pooled > 1 else total

    def summed(
        self, rows: slice, heads: slice, keygroups: slice, entries: slice | Int[Tensor, "*entry"]
    ) -> Float[Tensor, "batch group time entry"]:
        """Sums over some heads, of the queries in `rows` and some keys."""
        relu = self.activation == "relu"
        if self.integers is None:
            weights = None if self.weights is None else self.weights[:, :, rows, heads]
            queries, keys = self.queries[:, :, rows, heads], self.keys[:, keygroups, entries]
            return weighted_dots(queries, keys, weights, relu, self.accumulate)
        whole, keys, factors, scales = self.integers
        total = weighted_dots(
            whole[:, :, rows, heads].float(), keys[:, keygroups, entries].float(), factors[:, :, rows, heads], relu,
            self.accumulate,
        )  # fmt: skip
        return total * repeated(scales[:, keygroups, entries], self.groups)[:, :, None]

    def by_bands(self, rows: slice, columns: slice, offset: int) -> Float[Tensor, "batch group time token"]:
        """Scores where each band of heads scores keys of its own, at its distances."""
        device, head = self.queries.device, 0
        key = torch.arange(columns.start, columns.stop, device=device)
        distance = torch.arange(rows.start + offset, rows.stop + offset, device=device)[:, None] - key
        total = self.queries.new_zeros(())
        for band in self.bands:
            units = torch.arange(columns.start // band.unit, -(-columns.stop // band.unit), device=device)
            entries = (units * band.unit + band.unit - 1).clamp(max=self.units - 1)  # one that is cut off serves nobody
            part = self.summed(rows, slice(head, head + band.heads), slice(band.keygroup, band.keygroup + 1), entries)
            inside = distance >= band.first
            if band.last is not None:
                inside = inside & (distance <= band.last)
            part = part[..., key // band.unit - columns.start // band.unit].where(inside, 0.0)
            total, head = rounded(total + part, self.accumulate), head + band.heads
        return total

    def of_group(self, group: int) -> "IndexFeatures":
        part = slice(group, group + 1)
        weights = None if self.weights is None else self.weights[:, part]
        integers = self.integers

        def own(keys: Tensor) -> Tensor:
            return keys if self.bands else repeated(keys, self.groups)[:, part]

        if integers is not None:
            queries, keys, factors, scales = integers
            integers = Integers(queries[:, part], own(keys), factors[:, part], own(scales))
        return self._replace(queries=self.queries[:, part], keys=own(self.keys), weights=weights, integers=integers)

    def cost(self, zones: Zones | tuple[Zones, ...], length: int) -> float:
        """A pair costs 2 H_I d_I for the dot products and 3 H_I for ReLU, weight and sum; projections come on top.

        Of bands each costs what it scores.
        """
        if self.bands:
            return sum(band.cost(zones, length, self.groups, self.forced) for band in self.bands)
        pair = index_pair_flops(*self.queries.shape[3:]) * (self.unit if self.pool == "max" else 1)
        return pair * pairs_of_groups(self, zones, length)

    def numbers(self, length: int) -> tuple[int, int]:
        """How many numbers the queries and the keys of one sequence are."""
        heads, dim = self.queries.shape[3:]
        if self.bands:
            queries = sum(band.heads * band.dim for band in self.bands) * self.groups
            return length * queries, sum(length // band.unit * band.dim for band in self.bands)
        keys = length // (self.unit if self.pool == "entry" else 1) * self.keys.shape[1]
        return length * self.groups * heads * dim, keys * dim


class Emphasis(NamedTuple):
    """What of an attention counts more than the rest to those who learn it. Carries no gradient.

    Args:
        rows: how much each query's divergence counts, from 0: the loss is the mean weighted so. None: all alike.
        upstream: gradient of some loss by what each head's attention gives out; values: what it attends to. A
            probability then counts times |upstream[t] . values[s]|, the size of that loss's gradient by it.
    """

    rows: Float[Tensor, "batch time"] | None = None
    upstream: Float[Tensor, "batch head time dim"] | None = None
    values: Float[Tensor, "batch kv_head key dim"] | None = None

    def factors(self, rows: slice, columns: slice) -> Float[Tensor, "batch head row column"] | None:
        """Of the probabilities of these queries and keys."""
        if self.upstream is None or self.values is None:
            return None
        values = repeated(wide(self.values[:, :, columns]), self.upstream.shape[1])
        return (wide(self.upstream[:, :, rows]) @ values.mT).abs()


class TrueAttention(NamedTuple):
    """Scores are the attention probabilities themselves, summed over the heads of each group (the oracle).

    Args:
        keys: kv_head divides head, and heads map to kv_heads contiguously.
        logsumexp: per head and query, over the scope in which the probabilities are meant (dense or selected), and
            over a sink if there is one.
        groups: heads map to groups contiguously.
        mass: the scores at a selection's slots, if attending has left them: the indexer loss over this selection
            then need not compute them again.
        scale: of the logits; None = dim^-1/2.
        cap: of the scaled logits: cap * tanh(logits / cap); None = none.
        emphasis: what of it counts more, where it is to be learned; None: all alike.
    """

    queries: Float[Tensor, "batch head time dim"]
    keys: Float[Tensor, "batch kv_head key dim"]
    logsumexp: Float[Tensor, "batch head time"]
    groups: int = 1
    mass: SelectedMass | None = None
    scale: float | None = None
    cap: float | None = None
    emphasis: Emphasis | None = None

    @property
    def unit(self) -> int:
        return 1

    @property
    def forced(self) -> Zones:
        return ()

    @property
    def width(self) -> int:
        return self.queries.shape[1] // self.groups

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.queries.shape[0], self.queries.shape[2], self.keys.shape[2]

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return self.queries, self.keys, self.logsumexp

    def scores(
        self, rows: slice, columns: slice, offset: int = 0, device: torch.device | None = None
    ) -> Float[Tensor, "batch group time unit"]:
        queries, keys = wide(self.queries[:, :, rows]), wide(self.keys[:, :, columns])
        scale = scale_of(queries, self.scale)
        factors = None if self.emphasis is None else self.emphasis.factors(rows, columns)
        return probability_sums(queries, keys, self.logsumexp[:, :, rows], scale, self.groups, self.cap, factors)

    def emphasised(self, emphasis: Emphasis | None) -> "TrueAttention":
        """The same attention, of which something counts more."""
        return self if emphasis is None else self._replace(emphasis=emphasis, mass=None)

    def of_group(self, group: int) -> "TrueAttention":
        heads = slice(group * self.width, (group + 1) * self.width)
        keys = repeated(self.keys, self.queries.shape[1])[:, heads]
        return TrueAttention(self.queries[:, heads], keys, self.logsumexp[:, heads], scale=self.scale, cap=self.cap)

    def cost(self, zones: Zones | tuple[Zones, ...], length: int) -> float:
        """2 D for a head's logit and 2 for its exponential and the sum over heads."""
        return (2 * self.queries.shape[3] + 2) * self.width * pairs_of_groups(self, zones, length)


class Positional(ABC):
    """Ranks keys by their positions alone: by no tensor, for all groups alike, without floating-point operations."""

    unit = 1
    groups = 1
    width = 1
    shape: tuple[int, int, int] | None = None
    forced: Zones = ()
    tensors: tuple[Tensor, ...] = ()

    @abstractmethod
    def scores(
        self, rows: slice, columns: slice, offset: int = 0, device: torch.device | None = None
    ) -> Float[Tensor, "1 1 time unit"]:
        """As `Scorer.scores`."""

    def of_group(self, group: int) -> "Positional":
        return self

    def cost(self, zones: Zones | tuple[Zones, ...], length: int) -> float:
        return 0.0


@dataclass(frozen=True)
class Hash(Positional):
    """Scores are pseudo-random whole numbers below 2^24, a function of seed, layer, step, query and key alone."""

    seed: int
    layer: int = 0
    step: int = 0

    @property
    def parts(self) -> tuple[int, ...]:
        """What is mixed before query and key, 32 bits each."""
        return self.seed, self.seed >> 32, self.layer, self.step

    def scores(
        self, rows: slice, columns: slice, offset: int = 0, device: torch.device | None = None
    ) -> Float[Tensor, "1 1 time unit"]:
        query = torch.arange(rows.start + offset, rows.stop + offset, device=device)[:, None]
        key = torch.arange(columns.start, columns.stop, device=device)[None, :]
        return (hash32(self.parts, query, key) >> 8).float()[None, None]


@dataclass(frozen=True)
class Recency(Positional):
    """Scores are the key positions, so the nearest keys win; before them, where there are sinks, a row's first keys.

    Args:
        sinks: how many of a row's first keys come before all others (Xiao et al. 2023, arXiv:2309.17453).
    """

    sinks: int = 0

    def scores(
        self, rows: slice, columns: slice, offset: int = 0, device: torch.device | None = None
    ) -> Float[Tensor, "1 1 time unit"]:
        key = torch.arange(columns.start, columns.stop, device=device)
        ranked = torch.where(key < self.sinks, (1 << 24) - key, key)
        return ranked.expand(rows.stop - rows.start, -1).float()[None, None]


def pairs_of_groups(scorer: Scorer, zones: Zones | tuple[Zones, ...], length: int) -> int:
    """Pairs of a query and a unit that are scored, of all groups."""
    each = by_group(zones)
    pairs = sum(scored_pairs(one, length, scorer.unit, scorer.forced) for one in each)
    return pairs * (scorer.groups if len(each) == 1 else 1)
