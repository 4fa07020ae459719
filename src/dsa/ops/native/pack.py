"""What the selecting kernel reads of a scorer: its queries, and its keys packed for every step of the zones."""

import ctypes
from functools import singledispatch
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dsa.ops.contracts import Scorer
from dsa.ops.native.arguments import address, call, i64, loaded, pointer, single, structure
from dsa.ops.scorers import KEY_MARGIN, Hash, IndexFeatures, Integers, Recency, TrueAttention
from dsa.ops.scores import hash_state, scale_of
from dsa.ops.zones import Span

ZoneArgs = structure("ZoneArgs", "*start *count *keep step forced unit *keys stride segment")
ScorerArgs = structure(
    "ScorerArgs", "*queries *weights *keys stride batch_stride share first_head seed", seed=ctypes.c_uint32
)
SelectArgs = structure(
    "SelectArgs",
    "*zones zone_count scorer batch groups scorer_groups zone_groups time offset slots pool capacity forced_scores "
    "*positions *broken *scores *logsumexp *entropy *forced_logsumexp threads *scratch scratch_per_thread parts most "
    "*part_scores *part_indices *part_counts",
    scorer=ScorerArgs,
)
STRUCTURES = SelectArgs, ZoneArgs, ScorerArgs


class Material(NamedTuple):
    """A scorer as the kernels see it.

    Args:
        constants: what they are compiled for.
        keys: [batch, keygroup, entry, dim].
        share: groups that share their keys; of attention, heads.
        pool: tokens whose best score is that of their unit.
        seed: of a hash; of recency, how many keys come first.
    """

    constants: dict[str, int]
    queries: Tensor | None = None
    weights: Tensor | None = None
    keys: Tensor | None = None
    share: int = 1
    pool: int = 1
    seed: int = 0


@singledispatch
def material(scorer: Any) -> Material:
    """What a scorer is to the kernels."""
    raise TypeError(f"the fused kernels have no scores of a {type(scorer).__name__}.")


CAPPED = "the fused kernels know no cap of the attention logits."


def uncovered(scorer: Scorer) -> str | None:
    """Why there is no kernel for a scorer; None if there is one."""
    if material.dispatch(type(scorer)) is material.dispatch(object):
        return f"the fused kernels have no scores of a {type(scorer).__name__}."
    if getattr(scorer, "cap", None) is not None:
        return CAPPED
    if getattr(scorer, "bands", ()):
        return "the fused kernels know no heads that score some distances alone."
    if isinstance(scorer, IndexFeatures) and scorer.accumulate != torch.float32 and not in_bfloat(scorer):
        return "the fused kernels accumulate index scores in float32, and in bfloat16 of numbers in bfloat16, alone."
    return None


def multiplies(dtype: torch.dtype) -> bool:
    """Whether index scores are computed from 8-bit integers (AVX-512 VNNI), or from bfloat16 (AVX-512 BF16), as such on
    this processor."""
    kernels = loaded("select.cpp", STRUCTURES, SCORER=3)
    units = {torch.int8: kernels.integer_unit, torch.bfloat16: kernels.bfloat_unit}
    return dtype in units and bool(call(units[dtype]))


def in_bfloat(scorer: IndexFeatures) -> bool:
    """Whether the kernels score them from bfloat16."""
    sums = scorer.accumulate in (torch.float32, torch.bfloat16)
    return scorer.held == torch.bfloat16 and sums and multiplies(torch.bfloat16)


def of_integers(integers: Integers, relu: bool, pool: int) -> Material:
    """Index features in 8-bit integers, four of them in the place of a float."""
    dims = integers.queries.shape[-1]
    queries, keys = (F.pad(x, (0, -dims % 4)).contiguous() for x in (integers.queries, integers.keys))
    start = -128 * queries.sum(-1, dtype=torch.int32)
    queries = torch.cat([queries.view(torch.int32), start[..., None]], -1)
    above = (keys.view(torch.uint8) ^ 128).view(torch.float32)
    keys = torch.cat([above, single(integers.scales)[..., None]], -1)
    constants = {"HEADS": queries.shape[3], "DIM": 4 * (queries.shape[4] - 1), "RELU": int(relu)}
    weights, share = single(integers.weights).contiguous(), queries.shape[1] // keys.shape[1]
    return Material({"SCORER": 4, **constants}, queries, weights, keys, share, pool)


def of_bfloats(scorer: IndexFeatures, pool: int) -> Material:
    """Index features in bfloat16, two of them in the place of a float."""
    dims = scorer.queries.shape[-1]
    queries, keys = (
        F.pad(x.detach().to(torch.bfloat16), (0, -dims % 2)).contiguous().view(torch.float32)
        for x in (scorer.queries, scorer.keys)
    )
    constants = {
        "SCORER": 5, "HEADS": queries.shape[3], "DIM": 2 * queries.shape[4], "RELU": int(scorer.activation == "relu"),
        "ROUND": int(scorer.accumulate == torch.bfloat16),
    }  # fmt: skip
    weights = None if scorer.weights is None else single(scorer.weights).contiguous()
    return Material(constants, queries, weights, keys, queries.shape[1] // keys.shape[1], pool)


@material.register
def _(scorer: IndexFeatures) -> Material:
    pool = scorer.unit if scorer.pool == "max" else 1
    if scorer.integers is not None and multiplies(torch.int8):
        return of_integers(scorer.integers, scorer.activation == "relu", pool)
    if in_bfloat(scorer):
        return of_bfloats(scorer, pool)
    queries, keys = single(scorer.queries).contiguous(), scorer.keys.detach()
    keys = keys if row_stride(keys) else single(keys)
    constants = {"HEADS": queries.shape[3], "DIM": queries.shape[4], "RELU": int(scorer.activation == "relu")}
    weights = None if scorer.weights is None else single(scorer.weights).contiguous()
    return Material({"SCORER": 0, **constants}, queries, weights, keys, queries.shape[1] // keys.shape[1], pool)


@material.register
def _(scorer: TrueAttention) -> Material:
    scaled = single(scorer.queries) * scale_of(scorer.queries, scorer.scale)
    queries = scaled.unflatten(1, (scorer.groups, -1)).transpose(2, 3).contiguous()
    weights = single(scorer.logsumexp).unflatten(1, (scorer.groups, -1)).transpose(2, 3).contiguous()
    constants = {"SCORER": 1, "HEADS": queries.shape[3], "DIM": queries.shape[4]}
    return Material(constants, queries, weights, single(scorer.keys), scaled.shape[1] // scorer.keys.shape[1])


@material.register
def _(scorer: Hash) -> Material:
    return Material({"SCORER": 2}, seed=hash_state(scorer.parts))


@material.register
def _(scorer: Recency) -> Material:
    return Material({"SCORER": 3}, seed=scorer.sinks)


def row_stride(keys: Tensor) -> int | None:
    """Floats between dims of keys that the kernels can read as they lie: tokens side by side, with a margin behind."""
    (batch, rows, entries, dim), stride = keys.shape, keys.stride(3)
    wanted = rows * dim * stride, dim * stride, 1, stride
    fits = all(size == 1 or own == want for size, own, want in zip(keys.shape, keys.stride(), wanted, strict=True))
    room = keys.untyped_storage().nbytes() // keys.element_size() - keys.storage_offset()
    enough = stride >= entries + KEY_MARGIN and room >= batch * rows * dim * stride
    return stride if fits and enough and keys.dtype == torch.float32 else None


class Packed(NamedTuple):
    """The kernels for a scorer, what they are told of it, and where they find the keys of every step.

    Args:
        steps: address, floats between dims, and packed keys of one remainder of position / step.
        kept: tensors that must outlive the call.
    """

    kernels: ctypes.CDLL
    args: Any
    steps: dict[int, tuple[int | None, int, int]]
    kept: list[Tensor | None]


def packed(of: Material, every: list[Span], keys: int, all_zones: bool) -> Packed:
    """A scorer made ready for the zones of a call.

    Args:
        all_zones: forced ones are scored too.
    """
    kernels = loaded("select.cpp", STRUCTURES, **of.constants)
    steps: dict[int, tuple[int | None, int, int]] = {s.step: (None, 0, -(-keys // s.step)) for s in every}
    kept = [of.queries, of.weights, of.keys]
    batch_stride = 0
    if of.keys is not None:
        batch, rows, entries, dim = of.keys.shape
        batch_stride, as_they_lie = rows * dim, row_stride(of.keys)
        for step in {s.step for s in every if all_zones or not s.forced}:
            if step == 1 and as_they_lie is not None:
                steps[step] = (address(of.keys), as_they_lie, entries)
                continue
            segment = -(-entries // step)
            stride = -(-step * segment // 16) * 16 + KEY_MARGIN
            to, keys_of = torch.empty(batch * rows * dim * stride), single(of.keys)
            kernels.pack_keys(
                pointer(address(keys_of)), *map(i64, keys_of.stride()[:3]),
                i64(batch), i64(rows), i64(entries), i64(dim), i64(step), i64(segment), i64(stride),
                pointer(address(to)), i64(torch.get_num_threads()),
            )  # fmt: skip
            kept.append(to)
            steps[step] = (address(to), stride, segment)
    args = ScorerArgs(address(of.queries), address(of.weights), None, 0, batch_stride, of.share, 0, of.seed)
    return Packed(kernels, args, steps, kept)
