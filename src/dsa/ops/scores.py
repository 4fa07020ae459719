"""Index scores of a tile of queries and keys, for every Scorer. All backends but the native one go through here."""

import torch
from einops import rearrange, reduce
from jaxtyping import Float, Int
from torch import Tensor

from dsa.ops.contracts import Hash, IndexFeatures, Scorer, TrueAttention

MASK32 = 0xFFFFFFFF


def groups_of(scorer: Scorer) -> int:
    """Number of groups whose selections differ."""
    if isinstance(scorer, IndexFeatures):
        return scorer.queries.shape[1]
    return scorer.groups if isinstance(scorer, TrueAttention) else 1


def block_of(scorer: Scorer) -> int:
    """Tokens per selectable unit."""
    return scorer.block if isinstance(scorer, IndexFeatures) else 1


def score(
    scorer: Scorer, rows: slice, columns: slice, offset: int = 0, device: torch.device | None = None
) -> Float[Tensor, "batch group time unit"]:
    """Scores of the queries in `rows` (indices into the queries) against the units in `columns`.

    Units are tokens, or blocks for features with `block` > 1. Hash and Recency know neither batch nor device:
    they give batch 1, on `device`.
    """
    if isinstance(scorer, IndexFeatures):
        return _feature_scores(scorer, rows, columns)
    if isinstance(scorer, TrueAttention):
        return _attention_scores(scorer, rows, columns)
    query = torch.arange(rows.start + offset, rows.stop + offset, device=device)[:, None]
    key = torch.arange(columns.start, columns.stop, device=device)[None, :]
    value = hash32(scorer, query, key) >> 8 if isinstance(scorer, Hash) else key.expand(len(query), -1)
    return value.float()[None, None]


def _feature_scores(features: IndexFeatures, rows: slice, columns: slice) -> Float[Tensor, "batch group time unit"]:
    per_token = features.pool == "max" and features.block > 1
    if per_token:
        columns = slice(columns.start * features.block, columns.stop * features.block)
    queries, keys = features.queries[:, :, rows], features.keys[:, :, columns]
    weights = None if features.weights is None else features.weights[:, :, rows]
    coarse = features.accumulate != torch.float32

    def rounded(x: Tensor) -> Tensor:  # straight-through: gradients would vanish in a half format
        return x + (x.to(features.accumulate).to(x.dtype) - x).detach() if coarse else x

    dots = rounded(torch.einsum("bgthd,bgsd->bgths", queries, repeated(keys, queries.shape[1])))
    if features.activation == "relu":
        dots = dots.relu()
    if weights is not None:
        dots = rounded(dots * weights[..., None])
    total = dots[..., 0, :]
    for head in range(1, dots.shape[-2]):
        total = rounded(total + dots[..., head, :])
    if per_token:
        total = reduce(total, "b g t (u block) -> b g t u", "max", block=features.block)
    return total


def _attention_scores(attention: TrueAttention, rows: slice, columns: slice) -> Float[Tensor, "b g t s"]:
    queries, keys = wide(attention.queries[:, :, rows]), wide(attention.keys[:, :, columns])
    logits = queries @ repeated(keys, queries.shape[1]).mT * scale_of(queries, attention.scale)
    probability = (logits - attention.logsumexp[:, :, rows, None]).exp()
    return rearrange(probability, "b (g h) t s -> b g h t s", g=attention.groups).sum(2)


def repeated(x: Float[Tensor, "batch few *rest"], many: int) -> Float[Tensor, "batch many *rest"]:
    """One for each of `many`, which map to the few contiguously: key/value heads for heads, keygroups for groups."""
    return x if x.shape[1] == many else x.repeat_interleave(many // x.shape[1], 1)


def scale_of(q: Float[Tensor, "*rest dim"], scale: float | None) -> float:
    """What the logits are multiplied by: dim^-1/2 unless given."""
    return q.shape[-1] ** -0.5 if scale is None else scale


def wide(x: Tensor) -> Tensor:
    """Half formats are computed in float32."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def hash32(hash: Hash, query: Int[Tensor, "..."], key: Int[Tensor, "..."]) -> Int[Tensor, "..."]:
    """32 well-mixed bits of (seed, layer, step, query, key); murmur3's finaliser between the parts, in int64."""
    state = 0x9E3779B9
    for part in (hash.seed, hash.seed >> 32, hash.layer, hash.step):
        state = _mix_int(state ^ (part & MASK32))
    return _mix(_mix((query + state) & MASK32) ^ key)


def _mix(x: Tensor) -> Tensor:
    x = x & MASK32
    x = ((x ^ (x >> 16)) * 0x85EBCA6B) & MASK32
    x = ((x ^ (x >> 13)) * 0xC2B2AE35) & MASK32
    return x ^ (x >> 16)


def _mix_int(x: int) -> int:
    x = ((x ^ (x >> 16)) * 0x85EBCA6B) & MASK32
    x = ((x ^ (x >> 13)) * 0xC2B2AE35) & MASK32
    return x ^ (x >> 16)


def check_scores(scores: Tensor, legal: Tensor) -> None:
    """Raise if a legal key's score is not a number: such a key cannot be ranked."""
    broken = scores.isnan() & legal
    if broken.any():
        query = int(broken.flatten(0, 1).any(-1).any(0).nonzero()[0])
        raise FloatingPointError(
            f"index scores: {int(broken.sum())} are NaN, the first for query {query} of this call. "
            "The indexer or its inputs hold NaN or infinite values; none of these keys was selected."
        )
