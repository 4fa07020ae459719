"""What is measured about a selection: how much attention it captures, beside the best that could be."""

from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dsa import ops
from dsa.backbones import Backbone, Observation, Pass
from dsa.ops import IndexFeatures, InUnits, Mixed, Scorer, Selection, TrueAttention, Zone
from dsa.ops.zones import first_forced
from dsa.precision import Bits

EVERYTHING = (Zone(first=None, last=0),)


class LayerSelection(NamedTuple):
    """One layer's selection, averaged over rows and heads.

    Args:
        mass: share of the dense attention probability on the selected keys; a learned sink holds the rest of it. Where
            a site reads entries, on those and on the window's tokens.
        oracle_mass: the same for the keys of highest attention, as many per query, over all earlier keys.
        recall: share of those keys that were selected, over queries that could not keep everything.
        kl: KL(p || softmax(I)) over all earlier keys that the indexer does not force [nats]; None without an indexer.
        density: kept pairs over those of dense attention, the causal ones; of entries and tokens as they are read.
        mean_k: kept keys per query [tokens]; of an entry as many as it stands for, and those that have none yet.
        quantisation_error: relative error (root mean square) of the index scores through the precision's format.
        zero_share: share of index scores that are exactly zero, where only position decides.
        index_bits: mean bits of a number of the index queries and keys, without what scales take; simulated or not.
        rows_4_bit, rows_8_bit, rows_16_bit, rows_32_bit: share of index queries and keys that such numbers hold.
        mass_asked, oracle_mass_asked, kl_asked, mean_k_asked: over the queries that are asked for something, where not
            all are: only their loss counts, and equal means over all queries may be other budgets for them.
        chosen: for each group of heads the share of queries that got each of the pattern's library; None without one.
        picked: the share of rows that got each of the indexer's parts; None without such.
    """

    mass: float
    oracle_mass: float
    recall: float
    kl: float | None
    density: float
    mean_k: float
    quantisation_error: float | None
    zero_share: float | None
    index_bits: float | None
    rows_4_bit: float | None
    rows_8_bit: float | None
    rows_16_bit: float | None
    rows_32_bit: float | None
    mass_asked: float | None
    oracle_mass_asked: float | None
    kl_asked: float | None
    mean_k_asked: float | None
    chosen: list[dict[str, float]] | None
    picked: dict[str, float] | None


@torch.no_grad()
def probe(
    model: Backbone, tokens: Int[Tensor, "row time"], asked: Bool[Tensor, "row time"] | None = None
) -> list[LayerSelection]:
    """Measure each layer's selection on some held-out rows, in float32.

    Args:
        asked: queries that are asked for something; None for all.
    """
    return [measure(layer, asked) for layer in observed(model, tokens)]


@torch.no_grad()
def observed(model: Backbone, tokens: Int[Tensor, "row time"]) -> list[Observation]:
    """What each routed site does on some rows, in float32."""
    seen: list[Observation] = []
    training = model.training
    model.eval()
    with torch.autocast(tokens.device.type, enabled=False):
        model.run(tokens, Pass(observe=seen.append, logits=False))
    model.train(training)
    return seen


@torch.no_grad()
def measure(seen: Observation, asked: Bool[Tensor, "row time"] | None = None) -> LayerSelection:
    """Measure one layer's selection."""
    q, k, scale, cap = seen.queries, seen.keys, seen.scale, seen.cap
    time, entries = q.shape[2], seen.entries
    dense = dense_of(seen)
    mass = best = torch.ones_like(dense)
    if seen.sink is not None:  # which holds the rest
        mass = best = captured(seen, None, dense)
    recall = density = 1.0
    kept = torch.arange(1.0, time + 1, device=q.device).expand(len(q), time)
    if seen.selection is not None:
        oracle = best_of(seen, dense, seen.selection)
        mass, best = (captured(seen, selection, dense) for selection in (seen.selection, oracle))
        found = (seen.selection, oracle)
        recall = overlap(*(found if entries is None else map(entries.closed, found)))
        kept = seen.selection.counts.float().mean(1)
        density = kept.mean().item() / ((time + 1) / 2) if entries is None else entries.density(seen.selection)
    kl = error = zeros = kl_asked = None
    if seen.features is not None and seen.cast is not None:
        target = TrueAttention(q, k, dense, seen.cast.groups, scale=scale, cap=cap)
        kl = ops.indexer_loss(seen.cast, target, None).item()
        error, zeros = index_errors(seen.features, seen.cast)
        kl_asked = None if asked is None else kl_of(seen.cast, target, asked)
    mass_asked, best_asked, kept_asked = (
        None if asked is None else share[asked].mean().item() for share in (mass.mean(1), best.mean(1), kept)
    )
    return LayerSelection(
        mass.mean().item(), best.mean().item(), recall, kl, density, kept.mean().item(), error, zeros,
        *spent(seen.bits), mass_asked, best_asked, kl_asked, kept_asked,
        None if seen.choice is None else seen.choice.shares(), None if seen.picked is None else seen.picked.shares(),
    )  # fmt: skip


def dense_of(seen: Observation) -> Float[Tensor, "batch head time"]:
    """Log-sum-exp of a layer's dense attention."""
    q, k = seen.queries, seen.keys
    if seen.entries is not None:
        return seen.entries.attend(q, None)[1]
    return ops.dense_logsumexp(q, k, seen.sink, scale=seen.scale, cap=seen.cap)


def captured(seen: Observation, selection: Selection | None, dense: Tensor) -> Float[Tensor, "batch head time"]:
    """Share of a layer's dense probability on a selection; None: on every key, without a sink."""
    q, k, scale, cap = seen.queries, seen.keys, seen.scale, seen.cap
    if seen.entries is not None:
        return seen.entries.captured(q, selection, dense)
    if selection is None:
        return (ops.dense_logsumexp(q, k, scale=scale, cap=cap) - dense).exp()
    return ops.captured(q, k, selection, dense, scale=scale, cap=cap)


def best_of(seen: Observation, dense: Tensor, selection: Selection) -> Selection:
    """As many keys of highest attention as a selection has of each query."""
    groups, entries = selection.positions.shape[1], seen.entries
    if entries is None:
        attention: Scorer = TrueAttention(seen.queries, seen.keys, dense, groups, scale=seen.scale, cap=seen.cap)
    else:
        attention = InUnits(TrueAttention(seen.queries, entries.far, dense, groups), entries.stride)
    return ops.select(attention, EVERYTHING, selection.counts.long())


def kl_of(scorer: IndexFeatures | Mixed, target: TrueAttention, asked: Bool[Tensor, "row time"]) -> float | None:
    """KL(p || softmax(I)) as `kl`, of these queries alone [nats]; None for scores of several tokens."""
    if scorer.unit > 1:
        return None
    time = asked.shape[1]
    everything = slice(0, time), slice(0, time)
    place = torch.arange(time, device=asked.device)
    fence = first_forced(scorer.forced, place)
    asked = asked & (fence > 0)  # nothing competes before the first one
    apart = place >= fence[:, None]  # later keys, and those that the indexer forces
    wanted = target.scores(*everything).masked_fill(apart, 0.0).transpose(1, 2)[asked]
    wanted = wanted / wanted.sum(-1, keepdim=True)
    given = scorer.scores(*everything).masked_fill(apart, -torch.inf).log_softmax(-1).transpose(1, 2)[asked]
    return (torch.special.xlogy(wanted, wanted) - torch.where(wanted > 0, wanted * given, 0.0)).sum(-1).mean().item()


def overlap(selection: Selection, oracle: Selection) -> float:
    """Share of the oracle's keys that were selected, over queries that could not keep everything."""
    time = selection.positions.shape[2]
    forced = selection.counts >= torch.arange(1, time + 1, device=selection.counts.device)
    row = torch.arange(forced.numel(), device=forced.device).view(*forced.shape, 1) * (time + 1)

    def keys(x: Selection) -> Tensor:
        inside = (x.positions >= 0) & ~forced[..., None]
        return (row + x.positions)[inside]

    wanted = keys(oracle)
    return torch.isin(wanted, keys(selection)).float().mean().item() if len(wanted) else 1.0


def index_errors(exact: IndexFeatures | Mixed, cast: IndexFeatures | Mixed, queries: int = 64) -> tuple[float, float]:
    """Relative error of the rounded scores, and share of zeros, over the last queries of each row."""
    _, time, units = exact.shape
    rows = slice(max(0, time - queries), time)
    true, rounded = (x.scores(rows, slice(0, units)) for x in (exact, cast))
    last = torch.arange(1, units + 1, device=true.device) * exact.unit  # one past each unit
    legal = (last <= torch.arange(rows.start + 1, rows.stop + 1, device=true.device)[:, None]).expand_as(true)
    true, rounded = true[legal], rounded[legal]
    error = (rounded - true).norm() / true.norm().clamp(min=1e-30)
    return error.item(), (rounded == 0).float().mean().item()


def spent(bits: Bits | None) -> tuple[float | None, float | None, float | None, float | None, float | None]:
    """Mean bits of a number, and the shares of the rows, queries and keys, whose numbers take 4, 8, 16 and 32."""
    if bits is None:
        return None, None, None, None, None
    rows = torch.cat([x.flatten() for x in bits])
    four, eight, sixteen, all_ = ((rows == width).float().mean().item() for width in (4, 8, 16, 32))
    return rows.mean().item(), four, eight, sixteen, all_


def averaged(layers: list[LayerSelection]) -> dict[str, float | None]:
    """Mean over layers of each measure that every layer has; what was chosen and picked is not averaged."""
    out: dict[str, float | None] = {}
    for name in LayerSelection._fields[: LayerSelection._fields.index("chosen")]:
        values: list[Any] = [getattr(layer, name) for layer in layers]
        out[name] = None if None in values else sum(values) / len(values)
    return out
