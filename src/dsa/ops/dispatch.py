"""One entry for every op: backends are asked in order whether they serve a call, the one that is named first."""

import functools
import logging
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dsa.ops import blocked, faults, native, reference, triton
from dsa.ops.contracts import Backend, Call, Scorer, Selection, Trim
from dsa.ops.dense import attend_dense
from dsa.ops.merge import equally_wide, side_by_side
from dsa.ops.mixed import Mixed, mixed_loss, select_mixed
from dsa.ops.opaque import opaque
from dsa.ops.scorers import IndexFeatures, TrueAttention
from dsa.ops.scores import check_selection
from dsa.ops.zones import Zones, by_group

logger = logging.getLogger(__name__)
BACKENDS: tuple[Backend, ...] = (native, triton, blocked, reference)


def checked_backend(name: str) -> str:
    """The name, if a backend has it and it can run here.

    Raises:
        ValueError: none has, or it cannot.
    """
    if name == "auto":
        return name
    named = [backend for backend in BACKENDS if backend.name == name]
    if not named:
        known = ", ".join(sorted(backend.name for backend in BACKENDS))
        raise ValueError(f"ops = {name}: no such backend. Give auto, {known}.")
    if (reason := named[0].covers(Call())) is not None:
        raise ValueError(f"ops = {name}: {reason} Or give ops=auto.")
    return name


def serving(name: str, call: Call) -> Backend:
    """The backend that a call gets: the one that is named or else the first, if it covers the call, or the next that
    does; told once."""
    reasons: list[str] = []
    for backend in sorted(BACKENDS, key=lambda backend: backend.name != name):
        reason = backend.covers(call)
        if reason is None:
            if reasons and not (name == "auto" and backend.selected_only):
                tell(backend.name, " ".join(reasons))
            return backend
        reasons.append(reason)
    raise NotImplementedError(f"no backend serves this call: {' '.join(reasons)}")


@functools.cache
def tell(name: str, reason: str) -> None:
    """Say once who serves instead, and why."""
    logger.warning("attention runs in part on the %s backend, which is slower: %s", name, reason)


def own_dtypes(x: Tensor) -> AbstractContextManager[object]:
    """No autocast: ops compute in float32 whatever surrounds them, or the precision group would mean nothing."""
    device = x.device.type
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()


def settle() -> None:
    """Report the faults that kernels found in all calls so far, and wait for the device to tell of them.

    Raises:
        FloatingPointError, IndexError: as the op that found one says.
    """
    faults.settle(wait=True)


def computes_selected_only(
    name: str,
    *tensors: Tensor,
    scorer: Scorer | None = None,
    learner: IndexFeatures | None = None,
    cap: float | None = None,
    emphasis: bool = False,
) -> bool:
    """Whether the backend that serves computes the selected pairs alone; else its times say nothing of speed."""
    call = Call(tensors, scorer=scorer, learner=learner, cap=cap, emphasis=emphasis)
    return serving(name, call).selected_only


def multiplies(dtype: torch.dtype, name: str, device: torch.device) -> bool:
    """Whether the backend that selects computes index scores from numbers of this format as such; else in float32."""
    return serving(name, Call(device=device)).multiplies(dtype)


@opaque
def select(
    scorer: Scorer,
    zones: Zones | tuple[Zones, ...],
    limit: Int[Tensor, "batch group time"],
    trim: Trim | None = None,
    offset: int = 0,
    first: Int[Tensor, "batch"] | None = None,
    *,
    slots: int | None = None,
    backend: str = "auto",
) -> Selection:
    """The keys each query keeps: see `dsa.ops.reference.select`.

    Args:
        zones: of all groups, or of each. The groups of zones, limit and scorer may differ in number: what has fewer
            serves as many groups of the others in a row.

    Raises:
        ValueError: one has a number of groups that does not divide the largest, or the scorer has not these queries
            and keys.
    """
    if limit.dim() != 3:
        raise ValueError(f"select: limit has shape {tuple(limit.shape)}; give [batch, group, time], group 1 for all.")
    batch, _, time = limit.shape
    units = (offset + time) // scorer.unit
    if scorer.shape is not None and (scorer.shape[:2] != (batch, time) or scorer.shape[2] < units):
        raise ValueError(
            f"select: limits of batch {batch} for the queries {offset} to {offset + time - 1} need as many queries and "
            f"{units} units of keys; the scorer has batch, queries and units {scorer.shape}."
        )
    if isinstance(scorer, Mixed):
        return select_mixed(
            scorer,
            lambda own, kept, at, begin: select(own, zones, kept, trim, at, begin, slots=slots, backend=backend),
            limit, offset, first,
        )  # fmt: skip
    each = by_group(zones)
    counts = len(each), limit.shape[1], scorer.groups
    groups = max(counts)
    if any(groups % count for count in counts):
        raise ValueError(
            f"select: zones for {counts[0]} groups, limits for {counts[1]}, a scorer of {counts[2]}: "
            "give numbers that divide the largest."
        )
    ops = serving(backend, Call(device=limit.device, scorer=scorer, trims=trim is not None))
    with torch.no_grad(), own_dtypes(limit):
        if len(set(each)) == 1 and {*counts[1:]} <= {1, groups}:
            return ops.select(scorer, each[0], limit, trim, offset, first, slots)
        parts = [
            ops.select(
                scorer if scorer.groups == 1 else scorer.of_group(group * scorer.groups // groups),
                each[group * len(each) // groups],
                limit[:, group * limit.shape[1] // groups][:, None],
                trim, offset, first, slots,
            )
            for group in range(groups)
        ]  # fmt: skip
    return side_by_side(parts)


def select_chosen(
    scorer: Scorer,
    library: Sequence[Zones | tuple[Zones, ...]],
    entry: Int[Tensor, "batch group time"],
    limit: Int[Tensor, "batch group time"],
    trim: Trim | None = None,
    offset: int = 0,
    *,
    slots: int | None = None,
    backend: str = "auto",
) -> Selection:
    """The keys each query keeps of those that its own entry of a library of zones shows it: see `select`.

    Args:
        entry: of each query, an index into the library.
    """
    parts, gets = [], []
    for number, zones in enumerate(library):
        here = entry == number
        parts.append(select(scorer, zones, torch.where(here, limit, 0), trim, offset, slots=slots, backend=backend))
        gets.append(here.repeat_interleave(parts[-1].counts.shape[1] // here.shape[1], 1))
    merged = equally_wide(parts)
    positions, counts = merged[0]
    for here, part in zip(gets, merged, strict=True):
        positions = torch.where(here[..., None], part.positions, positions)
        counts = torch.where(here, part.counts, counts)
    return Selection(positions, counts)


def captured(
    q: Float[Tensor, "batch head time dim"],
    k: Float[Tensor, "batch kv_head key dim"],
    selection: Selection,
    dense: Float[Tensor, "batch head time"],
    sink: Float[Tensor, "head"] | None = None,
    *,
    scale: float | None = None,
    cap: float | None = None,
    backend: str = "auto",
) -> Float[Tensor, "batch head time"]:
    """Share of each query's dense probability on the selected keys (and a sink); it carries no gradient.

    Args:
        dense: log-sum-exp of the logits over every earlier key, see `dense_logsumexp`.
    """
    with torch.no_grad():
        _, sparse = attend(q, k, k, selection, sink, scale=scale, cap=cap, backend=backend)
        return (sparse - dense).exp()


@opaque
def attend(
    q: Float[Tensor, "batch head time dim"],
    k: Float[Tensor, "batch kv_head key dim"],
    v: Float[Tensor, "batch kv_head key dim"],
    selection: Selection,
    sink: Float[Tensor, "head"] | None = None,
    *,
    scale: float | None = None,
    cap: float | None = None,
    backend: str = "auto",
) -> tuple[Float[Tensor, "batch head time dim"], Float[Tensor, "batch head time"]]:
    """Attention over the selected keys: see `dsa.ops.reference.attend`. One that keeps everything runs dense on
    the CPU; another device is not asked.

    Raises:
        ValueError: shapes that do not fit each other, or a scale or cap that is not above 0.
    """
    check_attention(q, k, v, sink, scale, cap)
    check_selected(q, selection)
    if sink is None and cap is None and keeps_everything(selection, q.shape[2], k.shape[2]):
        return attend_dense(q, k, v, scale), dense_logsumexp(q.detach(), k.detach(), scale=scale, backend=backend)
    with own_dtypes(q):
        return serving(backend, Call((q, k, v), cap=cap)).attend(q, k, v, selection, sink, scale=scale, cap=cap)


@opaque
def attend_with_target(
    q: Float[Tensor, "batch head time dim"],
    k: Float[Tensor, "batch kv_head key dim"],
    v: Float[Tensor, "batch kv_head key dim"],
    selection: Selection,
    groups: int = 1,
    sink: Float[Tensor, "head"] | None = None,
    *,
    scale: float | None = None,
    cap: float | None = None,
    backend: str = "auto",
) -> tuple[Float[Tensor, "batch head time dim"], TrueAttention]:
    """As `attend`, and the attention itself: what an indexer loss over this selection is to reach.

    The fused kernels leave the probabilities in it, if there is room; the loss then need not compute them again.

    Args:
        groups: of the index features that are to learn it.
    """
    check_attention(q, k, v, sink, scale, cap)
    check_selected(q, selection)
    if sink is None and cap is None and keeps_everything(selection, q.shape[2], k.shape[2]):
        out, logsumexp = attend(q, k, v, selection, scale=scale, backend=backend)
        return out, TrueAttention(q.detach(), k.detach(), logsumexp, groups, scale=scale)
    with own_dtypes(q):
        ops = serving(backend, Call((q, k, v), cap=cap))
        return ops.attend_with_target(q, k, v, selection, groups, sink, scale=scale, cap=cap)


def check_attention(
    q: Tensor, k: Tensor, v: Tensor, sink: Tensor | None, scale: float | None, cap: float | None
) -> None:
    """Raise if shapes do not fit each other, or the scale or cap is impossible."""
    if k.shape != v.shape or (q.shape[0], q.shape[3]) != (k.shape[0], k.shape[3]) or q.shape[1] % k.shape[1]:
        shapes = ", ".join(str(tuple(x.shape)) for x in (q, k, v))
        raise ValueError(
            f"attend: q, k, v have shapes {shapes}; k and v must be alike, and q may differ from them in its length "
            "and have a multiple of their heads."
        )
    if sink is not None and sink.shape != q.shape[1:2]:
        raise ValueError(f"attend: sink has shape {tuple(sink.shape)}; give one logit for each of {q.shape[1]} heads.")
    if scale is not None and not 0 < scale < math.inf:
        raise ValueError(f"attend: scale = {scale}; give a number above 0, or None for dim^-1/2.")
    if cap is not None and not 0 < cap < math.inf:
        raise ValueError(f"attend: cap = {cap}; give a number above 0, or None for logits without a cap.")


def check_selected(q: Tensor, selection: Selection) -> None:
    """Raise if a selection is not one of these queries."""
    check_selection(selection, q.shape[0], q.shape[2], "attend")
    if q.shape[1] % selection.counts.shape[1]:
        raise ValueError(
            f"attend: the selection has {selection.counts.shape[1]} groups for {q.shape[1]} heads; give a divisor."
        )


def keeps_everything(selection: Selection, time: int, keys: int) -> bool:
    """Whether every query is seen to keep every key up to itself (queries and keys aligned at the first); a device that
    would have to be waited for is not asked."""
    if time != keys or selection.positions.shape[-1] < keys or selection.counts.device.type != "cpu":
        return False
    return bool((selection.counts == torch.arange(1, keys + 1, device=selection.counts.device)).all())


@opaque
def dense_logsumexp(
    q: Float[Tensor, "batch head time dim"],
    k: Float[Tensor, "batch kv_head key dim"],
    sink: Float[Tensor, "head"] | None = None,
    *,
    scale: float | None = None,
    cap: float | None = None,
    backend: str = "auto",
) -> Float[Tensor, "batch head time"]:
    """Log-sum-exp of causal attention logits: see `dsa.ops.reference.dense_logsumexp`. Carries no gradient."""
    check_attention(q, k, k, sink, scale, cap)
    with torch.no_grad(), own_dtypes(q):
        return serving(backend, Call((q, k), cap=cap)).dense_logsumexp(q, k, sink, scale=scale, cap=cap)


@opaque
def indexer_loss(
    features: IndexFeatures | Mixed,
    target: TrueAttention | Float[Tensor, "batch group time key"],
    selection: Selection | None,
    *,
    backend: str = "auto",
) -> Float[Tensor, ""]:
    """KL of the attention to softmax(I), over the selection or all causal keys: see `dsa.ops.reference`."""
    if isinstance(features, Mixed):
        return mixed_loss(features, target, selection, functools.partial(indexer_loss, backend=backend))
    features = features._replace(integers=None)
    with own_dtypes(features.queries):
        return learning(backend, features, target, selection is None).indexer_loss(features, target, selection)


def learning(name: str, features: IndexFeatures, target: TrueAttention | Tensor, dense: bool) -> Backend:
    """The backend that computes what features are to learn, over all keys or over a selection."""
    call = Call((), features.queries.device, learner=features, dense=dense)
    if isinstance(target, Tensor):
        return serving(name, call._replace(tensors=(target,)))
    emphasis = target.emphasis is not None
    return serving(name, call._replace(tensors=target.tensors, cap=target.cap, emphasis=emphasis))
