"""One entry for every op: the backend is chosen by device and shape, or named by the caller."""

from types import ModuleType
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from dsa.ops import blocked, reference
from dsa.ops.contracts import IndexFeatures, Scorer, Selection, TrueAttention
from dsa.ops.reference import Trim
from dsa.ops.scores import block_of, groups_of
from dsa.ops.zones import Zone, Zones

Backend = Literal["auto", "reference", "blocked"]
BACKENDS: dict[str, ModuleType] = {"reference": reference, "blocked": blocked}


def backend_named(name: str) -> ModuleType:
    """The module that serves under this name.

    Raises:
        ValueError: no backend has that name.
    """
    if name == "auto":
        return blocked
    if name not in BACKENDS:
        raise ValueError(f"ops = {name}: no such backend. Give auto, {' or '.join(BACKENDS)}.")
    return BACKENDS[name]


def checked_backend(name: str) -> str:
    """The name, if a backend has it.

    Raises:
        ValueError: none has.
    """
    backend_named(name)
    return name


def computes_selected_only(name: str, device: torch.device) -> bool:
    """Whether a backend computes nothing but the selected pairs on this device; else its times say nothing of speed."""
    return False


def select(
    scorer: Scorer,
    zones: Zones | tuple[Zones, ...],
    limit: Int[Tensor, "batch time"],
    trim: Trim | None = None,
    offset: int = 0,
    first: Int[Tensor, "batch"] | None = None,
    *,
    backend: str = "auto",
) -> Selection:
    """The keys each query keeps: see `dsa.ops.reference.select`. `zones` may differ by group."""
    if trim is not None and block_of(scorer) > 1:
        raise ValueError("select: a trim rule sees token scores; it cannot be combined with blocks of tokens.")
    ops = backend_named(backend)
    with torch.no_grad():
        if isinstance(zones[0], Zone):
            return ops.select(scorer, zones, limit, trim, offset, first)
        if len(zones) != groups_of(scorer):
            raise ValueError(f"select: zones for {len(zones)} groups, the scorer has {groups_of(scorer)}.")
        parts = [ops.select(group_of(scorer, g), zones[g], limit, trim, offset, first) for g in range(len(zones))]
    return side_by_side(parts)


def side_by_side(parts: list[Selection]) -> Selection:
    """Selections of single groups as one."""
    slots = max(part.positions.shape[-1] for part in parts)
    positions = [F.pad(part.positions, (0, slots - part.positions.shape[-1]), value=-1) for part in parts]
    return Selection(torch.cat(positions, 1), torch.cat([part.counts for part in parts], 1))


def group_of(scorer: Scorer, group: int) -> Scorer:
    """The scorer of one group alone."""
    if isinstance(scorer, IndexFeatures):
        part = slice(group, group + 1)
        keys = scorer.keys if scorer.keys.shape[1] == 1 else scorer.keys[:, part]
        weights = None if scorer.weights is None else scorer.weights[:, part]
        return scorer._replace(queries=scorer.queries[:, part], keys=keys, weights=weights)
    if isinstance(scorer, TrueAttention):
        size = scorer.queries.shape[1] // scorer.groups
        heads = slice(group * size, (group + 1) * size)
        return TrueAttention(scorer.queries[:, heads], scorer.keys[:, heads], scorer.logsumexp[:, heads])
    return scorer


def attend(
    q: Float[Tensor, "batch head time dim"],
    k: Float[Tensor, "batch head key dim"],
    v: Float[Tensor, "batch head key dim"],
    selection: Selection,
    sink: Float[Tensor, "head"] | None = None,
    *,
    backend: str = "auto",
) -> tuple[Float[Tensor, "batch head time dim"], Float[Tensor, "batch head time"]]:
    """Attention over the selected keys: see `dsa.ops.reference.attend`. One that keeps everything runs dense."""
    if sink is None and keeps_everything(selection, q.shape[2], k.shape[2]):
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return out, dense_logsumexp(q.detach(), k.detach(), backend=backend)
    return backend_named(backend).attend(q, k, v, selection, sink)


def keeps_everything(selection: Selection, time: int, keys: int) -> bool:
    """Whether every query keeps every key up to itself (queries and keys aligned at the first)."""
    if time != keys or selection.positions.shape[-1] < keys:
        return False
    return bool((selection.counts == torch.arange(1, keys + 1, device=selection.counts.device)).all())


def dense_logsumexp(
    q: Float[Tensor, "batch head time dim"], k: Float[Tensor, "batch head key dim"], *, backend: str = "auto"
) -> Float[Tensor, "batch head time"]:
    """Log-sum-exp of causal attention logits: see `dsa.ops.reference.dense_logsumexp`. Carries no gradient."""
    with torch.no_grad():
        return backend_named(backend).dense_logsumexp(q, k)


def indexer_loss(
    features: IndexFeatures,
    target: TrueAttention | Float[Tensor, "batch group time key"],
    selection: Selection | None,
    *,
    backend: str = "auto",
) -> Float[Tensor, ""]:
    """KL of the attention to softmax(I), over the selection or all causal keys: see `dsa.ops.reference`."""
    return backend_named(backend).indexer_loss(features, target, selection)
