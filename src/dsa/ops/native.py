"""The fused CPU backend: C++ kernels (kernels/*.cpp), compiled on first use, that touch only what was selected.

Definitions are those of `dsa.ops.reference`; arithmetic is float32 whatever the inputs' dtype.
"""

import ctypes
import functools
import math
import os
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from dsa.ops.compiler import NoCompiler, library
from dsa.ops.contracts import Hash, IndexFeatures, Recency, ScoredRows, Scorer, Selection, TrueAttention
from dsa.ops.reference import Trim, token_level
from dsa.ops.scores import MASK32, _mix_int, block_of, groups_of
from dsa.ops.zones import Span, Zone, Zones, spans

i64, pointer = ctypes.c_int64, ctypes.c_void_p

KEPT_LOGITS = 17_000_000
"""Bytes of logits that `attend` leaves for the indexer loss at most: reading more costs what computing them does."""


@functools.cache
def unavailable() -> str | None:
    """Why these kernels cannot run on this machine, and how to change that; None if they can."""
    try:
        library("select.cpp", SCORER=3)
    except NoCompiler as error:
        return str(error)
    return None


def supports(given: Scorer | Tensor) -> bool:
    """Whether these kernels cover a scorer or a tensor: on the CPU, float32 or narrower, accumulated in float32."""
    if isinstance(given, Tensor):
        return given.device.type == "cpu" and given.dtype in (torch.float32, torch.bfloat16, torch.float16)
    if isinstance(given, IndexFeatures):
        return given.accumulate == torch.float32 and supports(given.queries) and supports(given.keys)
    if isinstance(given, TrueAttention):
        return supports(given.queries) and supports(given.keys)
    return True


# --- what the kernels are told ---------------------------------------------------------------------------------------


class Heads(ctypes.Structure):
    _fields_ = [("data", pointer), ("batch", i64), ("head", i64), ("time", i64)]


def structure(name: str, fields: str, **types: Any) -> type[ctypes.Structure]:
    """A C structure with these fields in order: int64 unless named in `types`; `*x` is a pointer."""
    parts = [(f.lstrip("*"), pointer if f.startswith("*") else types.get(f, i64)) for f in fields.split()]
    return type(name, (ctypes.Structure,), {"_fields_": parts})


ZoneArgs = structure("ZoneArgs", "*start *count *keep step forced unit *keys stride segment")
ScorerArgs = structure(
    "ScorerArgs", "*queries *weights *keys stride group_stride batch_stride seed", seed=ctypes.c_uint32
)
SelectArgs = structure(
    "SelectArgs",
    "*zones zone_count scorer batch groups time offset slots pool capacity *positions *broken *scores *logsumexp "
    "*entropy *forced_logsumexp threads *scratch scratch_per_thread",
    scorer=ScorerArgs,
)
AttendArgs = structure(
    "AttendArgs",
    "q k v out *logsumexp *sink *positions *counts *bounds batch heads groups time keys slots tile parts threads "
    "*scratch scratch_per_thread grad_out grad_q grad_k grad_v part_stride *grad_sink *logits",
    **dict.fromkeys("q k v out grad_out grad_q grad_k grad_v".split(), Heads),
)
LossArgs = structure(
    "LossArgs",
    "q *keys *logsumexp *logits *p p_batch p_group p_time p_key *queries *index_keys *weights *positions *counts "
    "position_stride batch heads groups key_groups target_groups selection_groups time length slots *loss *valid "
    "*grad_queries *grad_weights *grad_keys parts rows threads *scratch scratch_per_thread",
    q=Heads,
)


def heads(x: Tensor) -> Any:
    return Heads(x.data_ptr(), x.stride(0), x.stride(1), x.stride(2))


def address(x: Tensor | None) -> int | None:
    return None if x is None else x.data_ptr()


def single(x: Tensor) -> Tensor:
    """In float32 with the last dimension dense: what the kernels read without a copy."""
    x = x.detach().float()
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()


def call(function: Any, *args: Any, result: Any = i64) -> Any:
    function.restype = result
    return function(*args)


def scratch(function: Any, threads: int, *sizes: int) -> tuple[Tensor, int]:
    """Working memory for every thread, as a tensor so that it is counted."""
    size = call(function, *map(i64, sizes))
    return torch.empty(threads * size), size


@functools.cache
def cache_bytes() -> int:
    """Half the second-level cache: what a thread may keep at hand."""
    try:
        return max(os.sysconf("SC_LEVEL2_CACHE_SIZE"), 1 << 19) // 2
    except (ValueError, OSError):
        return 1 << 19


def tile_keys(keys: int, dim: int, rows: int) -> int:
    """How many keys stay in the cache, with `rows` rows of `dim` floats each."""
    return min(keys, max(256, cache_bytes() // (rows * 4 * (-(-dim // 16) * 16))))


def units(rows: int, threads: int, most: int) -> int:
    """Into how many parts each of `rows` equal pieces of work is cut so that the threads end together."""
    if rows % threads == 0 or rows >= 4 * threads:
        return 1
    return max(1, min(-(-2 * threads // rows), most))


# --- select ----------------------------------------------------------------------------------------------------------


def select(
    scorer: Scorer,
    zones: Zones,
    limit: Int[Tensor, "batch time"],
    trim: Trim | None = None,
    offset: int = 0,
    first: Int[Tensor, "batch"] | None = None,
) -> Selection:
    """As `reference.select`.

    Raises:
        FloatingPointError: a key that competes has a score that is not a number.
    """
    with torch.no_grad():
        selection, rows = scan(scorer, zones, limit, offset, first, statistics=trim is not None)
        return selection if trim is None else trimmed(trim, selection, *rows)


def scan(
    scorer: Scorer, zones: Zones, limit: Tensor, offset: int = 0, first: Tensor | None = None, *, statistics: bool
) -> tuple[Selection, list[Tensor]]:
    """What is selected; with `statistics` also the kept keys' scores (NaN where forced) and the rows' log-sum-exp,
    entropy and log-sum-exp over the forced keys."""
    batch, time = limit.shape
    groups, block = groups_of(scorer), block_of(scorer)
    pool = block if isinstance(scorer, IndexFeatures) and scorer.pool == "max" else 1
    every = spans(zones, limit, offset, first, block)
    table = torch.stack([torch.stack([s.start, s.count, s.keep]) for s in every])
    counts = sum((s.keep * s.unit for s in every), torch.zeros_like(every[0].keep))
    slots = max(int(counts.max()), 1)
    most = max((int(s.keep.max()) for s in every if not s.forced), default=0)

    library, features, packed = prepare(scorer, every, offset + time, statistics)
    threads = torch.get_num_threads()
    capacity = max(2 * most, most + 1024) + call(library.select_chunk, i64(pool))
    memory, size = scratch(library.select_scratch, threads, capacity, pool, slots)
    shape = (batch, groups, time)
    positions = torch.empty(*shape, slots, dtype=torch.int32)
    broken = torch.empty(shape, dtype=torch.int32)
    rows = [torch.empty(*shape, slots), *(torch.empty(shape) for _ in range(3))] if statistics else []
    zone_args = (ZoneArgs * len(every))(
        *(ZoneArgs(*map(address, table[i]), s.step, s.forced, s.unit, *packed[s.step]) for i, s in enumerate(every))
    )
    args = SelectArgs(
        ctypes.addressof(zone_args), len(every), features[0], batch, groups, time, offset, slots, pool, capacity,
        address(positions), address(broken), *(map(address, rows) if rows else [None] * 4),
        threads, address(memory), size,
    )  # fmt: skip
    if call(library.select_keys, ctypes.byref(args)):
        report_broken(broken)
    return Selection(positions, counts.int()[:, None].expand(shape).contiguous()), rows


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
        return library("select.cpp", SCORER=kind), (ScorerArgs(None, None, None, 0, 0, 0, seed),), steps

    if isinstance(scorer, IndexFeatures):
        queries, source = single(scorer.queries).contiguous(), single(scorer.keys)
        weights = None if scorer.weights is None else single(scorer.weights).contiguous()
        _, _, _, count, dim = queries.shape
        constants = {"SCORER": 0, "HEADS": count, "DIM": dim, "RELU": int(scorer.activation == "relu")}
        per_key = dim
        key_groups = source.shape[1]
    else:
        scaled = single(scorer.queries) * scorer.queries.shape[-1] ** -0.5
        groups = scorer.groups
        queries = scaled.unflatten(1, (groups, -1)).transpose(2, 3).contiguous()
        weights = single(scorer.logsumexp).unflatten(1, (groups, -1)).transpose(2, 3).contiguous()
        source = single(scorer.keys)
        count, dim = queries.shape[3:]
        constants = {"SCORER": 1, "HEADS": count, "DIM": dim}
        per_key = count * dim
        key_groups = groups
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
    group_stride = 0 if key_groups == 1 else per_key
    args = ScorerArgs(address(queries), address(weights), None, 0, group_stride, key_groups * per_key, 0)
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


# --- attend ----------------------------------------------------------------------------------------------------------


def attend(
    q: Float[Tensor, "batch head time dim"],
    k: Float[Tensor, "batch head key dim"],
    v: Float[Tensor, "batch head key dim"],
    selection: Selection,
    sink: Float[Tensor, "head"] | None = None,
) -> tuple[Float[Tensor, "batch head time dim"], Float[Tensor, "batch head time"]]:
    """As `reference.attend`; the output lies in memory as [batch, time, head, dim]."""
    positions, counts = (x.int().contiguous() for x in selection)
    many = q.shape[0] * q.shape[1] * positions[0, 0].numel()
    logits = torch.empty(many + 64) if 4 * many <= KEPT_LOGITS and torch.is_grad_enabled() else None
    out, logsumexp = Attend.apply(q, k, v, sink, positions, counts, logits)
    if logits is not None:
        remember(logsumexp, logits, q, k, selection.positions)
    return out, logsumexp


def remember(logsumexp: Tensor, logits: Tensor, q: Tensor, k: Tensor, positions: Tensor) -> None:
    """Leave the logits where the indexer loss finds them: with the log-sum-exp that belongs to them."""
    logsumexp.kept_logits = (logits, q.data_ptr(), k.data_ptr(), positions)  # type: ignore[attr-defined]


def recalled(target: TrueAttention, positions: Tensor | None) -> Tensor | None:
    """The logits of this attention over these positions, if the forward pass kept them."""
    kept: tuple[Any, int, int, Any] = getattr(target.logsumexp, "kept_logits", (None, 0, 0, None))
    logits, q, k, of = kept
    if positions is None or positions is not of:
        return None
    if positions.shape[1] not in (1, target.groups):  # another group's keys
        return None
    return logits if (q, k) == (target.queries.data_ptr(), target.keys.data_ptr()) else None


class Attend(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        sink: Tensor | None,
        positions: Tensor,
        counts: Tensor,
        logits: Tensor | None,
    ) -> Any:
        batch, heads, time, dim = q.shape
        out = torch.empty(batch, time, heads, dim).transpose(1, 2)
        logsumexp = torch.empty(batch, heads, time)
        run_attend(q, k, v, sink, positions, counts, out, logsumexp, logits)
        ctx.save_for_backward(q, k, v, sink, positions, counts, out, logsumexp)
        ctx.mark_non_differentiable(logsumexp)
        ctx.set_materialize_grads(False)
        return out.to(q.dtype), logsumexp

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor | None, _: None) -> Any:
        if grad_out is None:
            return (None,) * 7
        q, k, v, sink, positions, counts, out, logsumexp = ctx.saved_tensors
        grads = run_attend(q, k, v, sink, positions, counts, out, logsumexp, None, grad_out)
        assert grads is not None
        return (*(g if g is None else g.to(x.dtype) for g, x in zip(grads, (q, k, v, sink), strict=True)), *(None,) * 3)


def run_attend(
    q: Tensor, k: Tensor, v: Tensor, sink: Tensor | None, positions: Tensor, counts: Tensor, out: Tensor,
    logsumexp: Tensor, logits: Tensor | None, grad_out: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None] | None:  # fmt: skip
    """Fill `out` and `logsumexp`; with `grad_out`, read them and return the gradients of q, k, v and the sink."""
    backward = grad_out is not None
    q, k, v = single(q), single(k), single(v)
    sink = None if sink is None else single(sink)
    batch, heads_, time, dim = q.shape
    keys, threads = k.shape[2], torch.get_num_threads()
    kernels = library("attend.cpp", HEAD_DIM=dim)
    tile = tile_keys(keys, dim, 4 if backward else 2)
    parts = units(batch * heads_, threads, keys // 64 if backward else time // 64)
    if backward and parts > 1:
        tile = min(tile, -(-keys // parts))
    if backward:
        parts = min(parts, -(-keys // tile))
    tiles = max(-(-keys // tile), 1)
    bounds = torch.empty(batch, positions.shape[1], tiles + 1, time, dtype=torch.int32)
    which = kernels.backward_scratch if backward else kernels.forward_scratch
    memory, size = scratch(which, threads, tile, time, positions.shape[-1])
    args = AttendArgs(
        heads(q), heads(k), heads(v), heads(out), address(logsumexp), address(sink), address(positions),
        address(counts), address(bounds), batch, heads_, positions.shape[1], time, keys, positions.shape[-1], tile,
        parts, threads, address(memory), size,
    )  # fmt: skip
    args.logits = address(logits)
    grads = None
    if grad_out is not None:
        grad_out, grad_k, grad_v = single(grad_out), torch.empty_like(k), torch.empty_like(v)
        like = torch.empty_like(q)
        grad_q = torch.empty_strided((parts, *q.shape), (q.numel(), *like.stride()))
        grad_sink = torch.empty(batch, heads_, parts)
        args.grad_out, args.grad_q, args.grad_k, args.grad_v = map(heads, (grad_out, grad_q[0], grad_k, grad_v))
        args.part_stride, args.grad_sink = q.numel(), address(grad_sink)
        grads = (grad_q, grad_k, grad_v, grad_sink)
    run = kernels.attend_forward if grads is None else kernels.attend_backward
    if not call(run, ctypes.byref(args), result=ctypes.c_bool):
        raise IndexError(f"attend: the selection holds positions outside the {keys} keys.")
    if grads is None:
        return None
    grad_q, grad_k, grad_v, grad_sink = grads
    return grad_q[0] if parts == 1 else grad_q.sum(0), grad_k, grad_v, None if sink is None else grad_sink.sum((0, 2))


def dense_logsumexp(
    q: Float[Tensor, "batch head time dim"], k: Float[Tensor, "batch head key dim"]
) -> Float[Tensor, "batch head time"]:
    """As `reference.dense_logsumexp`: what `select` can learn of rows of scores, a group per head."""
    batch, _, time, dim = q.shape
    everything = (Zone(first=None, keep="all"),)
    logits = IndexFeatures(q.detach().float()[:, :, :, None] * dim**-0.5, k.detach(), activation="none")
    nothing = torch.zeros(batch, time, dtype=torch.long)
    _, rows = scan(logits, everything, nothing, k.shape[2] - time, statistics=True)
    return rows[1]


# --- the indexer loss ------------------------------------------------------------------------------------------------


def indexer_loss(
    features: IndexFeatures, target: TrueAttention | Float[Tensor, "b g t s"], selection: Selection | None
) -> Float[Tensor, ""]:
    """As `reference.indexer_loss`. Where a gradient is wanted it is computed together with the loss."""
    token_level(features)
    batch, _, time = features.queries.shape[:3]
    keys = features.keys.shape[2]
    if selection is None:  # one list of all keys; each query reads as much of it as it sees
        positions = torch.arange(keys, dtype=torch.int32).expand(batch, 1, time, keys)
        counts = (torch.arange(1, time + 1, dtype=torch.int32) + keys - time).clamp(min=0)
        counts = counts.expand(batch, 1, time).contiguous()
    else:
        positions, counts = (x.int().contiguous() for x in selection)
    relu = features.activation == "relu"
    selected = None if selection is None else selection.positions
    return IndexerLoss.apply(
        features.queries, features.keys, features.weights, relu, target, positions, counts, selected
    )


class IndexerLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, queries: Tensor, keys: Tensor, weights: Tensor | None, relu: bool, target: TrueAttention | Tensor,
        positions: Tensor, counts: Tensor, selected: Tensor | None,
    ) -> Tensor:  # fmt: skip
        wanted = any(ctx.needs_input_grad)
        loss, grads = run_loss(queries, keys, weights, relu, target, positions, counts, selected, wanted)
        if wanted:
            ctx.save_for_backward(*grads)
            ctx.dtypes = [None if x is None else x.dtype for x in (queries, keys, weights)]
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        grads = [None if x is None else (x * grad).to(t) for x, t in zip(ctx.saved_tensors, ctx.dtypes, strict=True)]
        return (*grads, *(None,) * 5)


def run_loss(
    queries: Tensor, keys: Tensor, weights: Tensor | None, relu: bool, target: TrueAttention | Tensor,
    positions: Tensor, counts: Tensor, selected: Tensor | None, wanted: bool,
) -> tuple[Tensor, tuple[Tensor | None, ...]]:  # fmt: skip
    """The loss, and the gradients of queries, keys and weights if they are wanted."""
    queries, keys = single(queries).contiguous(), single(keys)
    weights = None if weights is None else single(weights).contiguous()
    batch, groups, time, index_heads, index_dim = queries.shape
    key_groups, length, slots = keys.shape[1], keys.shape[2], positions.shape[-1]
    threads = torch.get_num_threads()
    dim = target.queries.shape[-1] if isinstance(target, TrueAttention) else 16
    kernels = library("loss.cpp", HEAD_DIM=dim, HEADS=index_heads, DIM=index_dim, RELU=int(relu))
    args = LossArgs()
    if not isinstance(target, TrueAttention):
        explicit = target.detach().float()
        args.p, args.heads, args.target_groups = address(explicit), 1, explicit.shape[1]
        args.p_batch, args.p_group, args.p_time, args.p_key = explicit.stride()
    else:
        q, k, logsumexp = single(target.queries), single(target.keys), single(target.logsumexp).contiguous()
        args.logsumexp, args.logits = address(logsumexp), address(recalled(target, selected))
        if not args.logits:
            packed = pack_rows(kernels, k, 0)
            args.q, args.keys = heads(q), address(packed)
        args.heads, args.target_groups = q.shape[1], target.groups
    packed_index = pack_rows(kernels, keys, 1)
    args.queries, args.index_keys, args.weights = address(queries), address(packed_index), address(weights)
    args.positions, args.counts, args.selection_groups = address(positions), address(counts), positions.shape[1]
    args.position_stride = positions.stride(2)
    args.batch, args.groups, args.key_groups, args.time = batch, groups, key_groups, time
    args.length, args.slots, args.threads = length, slots, threads
    loss, valid = torch.empty(batch, groups, time), torch.empty(batch, groups, time, dtype=torch.int32)
    args.loss, args.valid = address(loss), address(valid)
    args.parts = units(batch, threads, min(16, -(-time // 64)))
    args.rows = min(2048, max(16, (1 << 19) // slots), -(-time // args.parts))
    grads: tuple[Tensor | None, ...] = ()
    if wanted:
        grad_queries = torch.empty_like(queries)
        grad_weights = None if weights is None else torch.empty_like(weights)
        grad_keys = torch.zeros(args.parts, *packed_index.shape)
        args.grad_queries, args.grad_weights = address(grad_queries), address(grad_weights)
        args.grad_keys = address(grad_keys)
    memory, args.scratch_per_thread = scratch(kernels.loss_scratch, threads, args.rows, slots)
    args.scratch = address(memory)
    if not call(kernels.indexer_loss, ctypes.byref(args), result=ctypes.c_bool):
        raise IndexError(f"indexer_loss: the selection holds positions outside the {length} keys.")
    rows = valid.sum().clamp(min=1)
    if wanted:
        total = grad_keys[0] if args.parts == 1 else grad_keys.sum(0)
        grads = (
            grad_queries / rows,
            total[..., :index_dim] / rows,
            None if grad_weights is None else grad_weights / rows,
        )
    return loss.sum() / rows, grads


def pack_rows(kernels: ctypes.CDLL, x: Tensor, index: int) -> Tensor:
    """Rows of [batch, head, time, dim] side by side, padded to whole vectors."""
    pitch = call(kernels.loss_index_pitch if index else kernels.loss_pitch)
    to = torch.empty(*x.shape[:3], pitch)
    kernels.pack_rows(
        ctypes.byref(heads(x)), i64(x.shape[0]), i64(x.shape[1]), i64(x.shape[2]), i64(index), pointer(address(to)),
        i64(torch.get_num_threads()),
    )  # fmt: skip
    return to
