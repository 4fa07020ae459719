"""Selecting on the fused CPU kernels."""

import ctypes
import functools
import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dsa.ops.compiler import library
from dsa.ops.contracts import Hash, IndexFeatures, Recency, ScoredRows, Scorer, Selection
from dsa.ops.native.arguments import address, asked, call, i64, pointer, scratch, single, structure
from dsa.ops.reference import Trim
from dsa.ops.scores import MASK32, _mix_int, block_of, groups_of, scale_of
from dsa.ops.zones import Span, Zone, Zones, spans

ZoneArgs = structure("ZoneArgs", "*start *count *keep step forced unit *keys stride segment")
ScorerArgs = structure(
    "ScorerArgs", "*queries *weights *keys stride batch_stride share first_head seed", seed=ctypes.c_uint32
)
SelectArgs = structure(
    "SelectArgs",
    "*zones zone_count scorer batch groups scorer_groups zone_groups time offset slots pool capacity "
    "*positions *broken *scores *logsumexp *entropy *forced_logsumexp threads *scratch scratch_per_thread",
    scorer=ScorerArgs,
)


def select(
    scorer: Scorer,
    zones: Zones,
    limit: Int[Tensor, "batch group time"],
    trim: Trim | None = None,
    offset: int = 0,
    first: Int[Tensor, "batch"] | None = None,
) -> Selection:
    """As `reference.select`.

    Raises:
        FloatingPointError: a key that competes has a score that is not a number.
    """
    selection, rows = scan(scorer, zones, limit, offset, first, statistics=trim is not None)
    return selection if trim is None else trimmed(trim, selection, *rows)


def scan(
    scorer: Scorer, zones: Zones, limit: Tensor, offset: int = 0, first: Tensor | None = None, *, statistics: bool
) -> tuple[Selection, list[Tensor]]:
    """What is selected; with `statistics` also the kept keys' scores (NaN where forced) and the rows' log-sum-exp,
    entropy and log-sum-exp over the forced keys."""
    batch, zone_groups, time = limit.shape
    scorer_groups, block = groups_of(scorer), block_of(scorer)
    groups = max(scorer_groups, zone_groups)
    pool = block if isinstance(scorer, IndexFeatures) and scorer.pool == "max" else 1
    every, table, counts, slots, most = budgets(
        tuple(zones),
        in_bytes(limit),
        (batch, zone_groups, time),
        offset,
        None if first is None else in_bytes(first),
        block,
    )
    library, features, packed = prepare(scorer, every, offset + time, statistics)
    threads = torch.get_num_threads()
    capacity = max(2 * most, most + 1024) + asked(library, "select_chunk", pool)
    memory, size = scratch(library, "select_scratch", threads, capacity, pool, slots)
    shape = (batch, groups, time)
    positions = torch.empty(*shape, slots, dtype=torch.int32)
    broken = torch.empty(shape, dtype=torch.int32)
    rows = [torch.empty(*shape, slots), *(torch.empty(shape) for _ in range(3))] if statistics else []
    row = table.stride(1) * table.element_size()
    first_rows = range(table.data_ptr(), table.data_ptr() + 3 * row * len(every), 3 * row)
    zone_args = (ZoneArgs * len(every))(
        *(
            ZoneArgs(at, at + row, at + 2 * row, s.step, s.forced, s.unit, *packed[s.step])
            for at, s in zip(first_rows, every, strict=True)
        )
    )
    args = SelectArgs(
        ctypes.addressof(zone_args), len(every), features[0], batch, groups, scorer_groups, zone_groups, time, offset,
        slots, pool, capacity,
        address(positions), address(broken), *(map(address, rows) if rows else [None] * 4),
        threads, address(memory), size,
    )  # fmt: skip
    if call(library.select_keys, ctypes.byref(args)):
        report_broken(broken)
    return Selection(positions, counts.expand(shape).clone(memory_format=torch.contiguous_format)), rows


class Budgets(NamedTuple):
    """What the kernels are told of zones and budgets: it is the same for all layers, and mostly for all steps."""

    every: list[Span]
    table: Int[Tensor, "zone 3 batch group time"]  # start, count and keep of every span
    counts: Int[Tensor, "batch group time"]
    slots: int
    most: int  # keys that a query takes by score from one zone


@functools.lru_cache(maxsize=8)
def budgets(
    zones: Zones, limit: bytes, shape: tuple[int, int, int], offset: int, first: bytes | None, block: int
) -> Budgets:
    """From tensors as bytes, so that equal ones find what was computed before."""
    starts = None if first is None else from_bytes(first, shape[:1])
    every = spans(zones, from_bytes(limit, shape), offset, starts, block)
    table = torch.stack([torch.stack(torch.broadcast_tensors(s.start, s.count, s.keep)) for s in every])
    counts = torch.stack([s.keep * s.unit for s in every]).sum(0)
    most = max((int(s.keep.max()) for s in every if not s.forced), default=0)
    return Budgets(every, table, counts.int(), max(int(counts.max()), 1), most)


def in_bytes(x: Int[Tensor, "..."]) -> bytes:
    return x.long().numpy().tobytes()


def from_bytes(x: bytes, shape: tuple[int, ...]) -> Int[Tensor, "..."]:
    return torch.frombuffer(bytearray(x), dtype=torch.long).view(shape)


def prepare(scorer: Scorer, every: list[Span], keys: int, all_zones: bool) -> tuple[ctypes.CDLL, tuple, dict]:
    """The kernels for a scorer, what they read of it, and its keys packed for every step that is scored.

    The tuple begins with the ScorerArgs; the rest are the tensors that must outlive the call.
    """
    steps: dict[int, tuple[int | None, int, int]] = {s.step: (None, 0, 0) for s in every}
    scored = {s.step for s in every if all_zones or not s.forced}
    if isinstance(scorer, Hash | Recency):
        for step in steps:
            steps[step] = (None, 0, -(-keys // step))
        seed = hash_state(scorer) if isinstance(scorer, Hash) else 0
        kind = 2 if isinstance(scorer, Hash) else 3
        return library("select.cpp", SCORER=kind), (ScorerArgs(None, None, None, 0, 0, 1, 0, seed),), steps

    if isinstance(scorer, IndexFeatures):
        queries, source = single(scorer.queries).contiguous(), single(scorer.keys)
        weights = None if scorer.weights is None else single(scorer.weights).contiguous()
        _, _, _, count, dim = queries.shape
        constants = {"SCORER": 0, "HEADS": count, "DIM": dim, "RELU": int(scorer.activation == "relu")}
        share = queries.shape[1] // source.shape[1]
    else:
        scaled = single(scorer.queries) * scale_of(scorer.queries, scorer.scale)
        groups = scorer.groups
        queries = scaled.unflatten(1, (groups, -1)).transpose(2, 3).contiguous()
        weights = single(scorer.logsumexp).unflatten(1, (groups, -1)).transpose(2, 3).contiguous()
        source = single(scorer.keys)
        count, dim = queries.shape[3:]
        constants = {"SCORER": 1, "HEADS": count, "DIM": dim}
        share = scaled.shape[1] // source.shape[1]
    batch, rows, entries, _ = source.shape
    kernels = library("select.cpp", **constants)
    keep: list[Tensor | None] = [queries, weights, source]
    for step in scored:
        segment = -(-entries // step)
        stride = -(-step * segment // 16) * 16 + 80
        to = torch.empty(batch * rows * dim * stride)
        kernels.pack_keys(
            pointer(address(source)), i64(source.stride(0)), i64(source.stride(1)), i64(source.stride(2)),
            i64(batch), i64(rows), i64(entries), i64(dim), i64(step), i64(segment), i64(stride),
            pointer(address(to)), i64(torch.get_num_threads()),
        )  # fmt: skip
        keep.append(to)
        steps[step] = (address(to), stride, segment)
    args = ScorerArgs(address(queries), address(weights), None, 0, rows * dim, share, 0, 0)
    return kernels, (args, *keep), steps


def hash_state(hash: Hash) -> int:
    state = 0x9E3779B9
    for part in (hash.seed, hash.seed >> 32, hash.layer, hash.step):
        state = _mix_int(state ^ (part & MASK32))
    return state


def report_broken(broken: Int[Tensor, "batch group time"]) -> None:
    query = int(broken.flatten(0, 1).any(0).nonzero()[0])
    raise FloatingPointError(
        f"index scores: {int(broken.sum())} are NaN, the first for query {query} of this call. "
        "The indexer or its inputs hold NaN or infinite values; none of these keys was selected."
    )


def trimmed(
    trim: Trim, selection: Selection, scores: Tensor, logsumexp: Tensor, entropy: Tensor, forced_logsumexp: Tensor
) -> Selection:
    """Keep as many of the kept keys as `trim` says, dropping the lowest scored ones; forced keys have score NaN."""
    used = selection.positions >= 0
    is_forced = scores.isnan() & used
    forced = is_forced.sum(-1)
    smallest = torch.finfo(scores.dtype).min
    competing = torch.where(used & ~is_forced, scores.clamp(min=smallest), -math.inf)
    ranked = competing.sort(dim=-1, descending=True, stable=True)
    slots = max(int((selection.counts - forced).max()), 1)
    rows = ScoredRows(ranked.values[..., :slots], forced, forced_logsumexp, logsumexp, entropy)
    keep = (trim(rows) - forced).clamp(min=0)[..., None]
    place = torch.arange(scores.shape[-1]) < keep
    stays = (torch.zeros_like(used).scatter(-1, ranked.indices, place) & used) | is_forced
    positions = torch.where(stays, selection.positions, torch.iinfo(torch.int32).max).sort(dim=-1).values
    counts = stays.sum(-1)
    positions = torch.where(torch.arange(scores.shape[-1]) < counts[..., None], positions, -1)
    return Selection(positions[..., : max(int(counts.max()), 1)].contiguous(), counts.int())


def dense_logsumexp(
    q: Float[Tensor, "batch head time dim"],
    k: Float[Tensor, "batch kv_head key dim"],
    sink: Float[Tensor, "head"] | None = None,
    *,
    scale: float | None = None,
) -> Float[Tensor, "batch head time"]:
    """As `reference.dense_logsumexp`: what `select` can learn of rows of scores, a group per head."""
    batch, _, time, _ = q.shape
    everything = (Zone(first=None, keep="all"),)
    logits = IndexFeatures(q.detach().float()[:, :, :, None] * scale_of(q, scale), k.detach(), activation="none")
    nothing = torch.zeros(batch, 1, time, dtype=torch.long)
    _, rows = scan(logits, everything, nothing, k.shape[2] - time, statistics=True)
    return rows[1] if sink is None else torch.logaddexp(rows[1], sink.detach().float()[:, None])
