"""Arithmetic of scores for a tile of queries and keys, in plain PyTorch."""

from typing import TypeVar

import torch
from einops import rearrange
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from dsa.ops import faults
from dsa.ops.contracts import Selection

MASK32 = 0xFFFFFFFF


def weighted_dots(
    queries: Float[Tensor, "batch group time head dim"],
    keys: Float[Tensor, "batch keygroup key dim"],
    weights: Float[Tensor, "batch group time head"] | None,
    relu: bool,
    accumulate: torch.dtype,
) -> Float[Tensor, "batch group time key"]:
    """sum_j weights[j] * relu(queries[j] . keys), each part rounded to the format `accumulate`."""
    dots = rounded(torch.einsum("bgthd,bgsd->bgths", queries, repeated(keys, queries.shape[1])), accumulate)
    if relu:
        dots = dots.relu()
    if weights is not None:
        dots = rounded(dots * weights[..., None], accumulate)
    total = dots[..., 0, :]
    for head in range(1, dots.shape[-2]):
        total = rounded(total + dots[..., head, :], accumulate)
    return total


def rounded(x: Tensor, accumulate: torch.dtype) -> Tensor:
    """x in the format `accumulate`, straight-through: gradients would vanish in a half format."""
    return x if accumulate == torch.float32 else x + (x.to(accumulate).to(x.dtype) - x).detach()


def probability_sums(
    queries: Float[Tensor, "batch head time dim"],
    keys: Float[Tensor, "batch kv_head key dim"],
    logsumexp: Float[Tensor, "batch head time"],
    scale: float,
    groups: int,
    cap: float | None = None,
    factors: Float[Tensor, "batch head time key"] | None = None,
) -> Float[Tensor, "batch group time key"]:
    """Attention probabilities from a known log-sum-exp, times their factors, summed over the heads of each group."""
    logits = capped(queries @ repeated(keys, queries.shape[1]).mT * scale, cap)
    p = (logits - logsumexp[..., None]).exp()
    return rearrange(p if factors is None else p * factors, "b (g h) t s -> b g h t s", g=groups).sum(2)


def repeated(x: Shaped[Tensor, "batch few *rest"], many: int) -> Shaped[Tensor, "batch many *rest"]:
    """One for each of `many`, which map to the few contiguously: key/value heads for heads, keygroups for groups."""
    return x if x.shape[1] == many else x.repeat_interleave(many // x.shape[1], 1)


def scale_of(q: Float[Tensor, "*rest dim"], scale: float | None) -> float:
    """What the logits are multiplied by: dim^-1/2 unless given."""
    return q.shape[-1] ** -0.5 if scale is None else scale


def capped(logits: Tensor, cap: float | None) -> Tensor:
    """Logits bent to stay between -cap and cap: cap * tanh(logits / cap), as in Gemma 2 (arXiv:2408.00118)."""
    return logits if cap is None else cap * (logits / cap).tanh()


def finite(x: Tensor) -> Tensor:
    """0 where a number is infinite or none."""
    return x.where(x.isfinite(), 0.0)


def largest(x: Int[Tensor, "..."]) -> int:
    """The largest of some whole numbers; 0 of none."""
    return int(x.max()) if x.numel() else 0


def check_selection(selection: Selection, batch: int, time: int, what: str) -> None:
    """Raise if a selection is not one of so many rows of so many queries, each with its positions: kernels go by its
    shape."""
    positions, counts = selection.positions.shape, selection.counts.shape
    if positions[:-1] != counts or (counts[0], counts[2]) != (batch, time):
        raise ValueError(
            f"{what}: the selection has positions {tuple(positions)} and counts {tuple(counts)}; give "
            f"[batch, group, time, slot] and [batch, group, time] for {batch} rows of {time} queries."
        )


def check_positions(positions: Int[Tensor, "*rest slot"], keys: int) -> None:
    """Raise if a position lies outside the keys; of a device that would have to be waited for, later (`faults`)."""
    if positions.is_cpu:
        report_outside(largest(positions), keys)
    elif positions.numel():
        faults.watch(positions.max(), lambda position: report_outside(position, keys))


def report_outside(position: int, keys: int) -> None:
    """Raise if the largest position of a selection lies outside the keys."""
    if position >= max(keys, 1):
        raise IndexError(f"attend: the selection holds positions outside the {keys} keys.")


def slots_for(counts: Int[Tensor, "..."], given: int | None) -> int:
    """How many slots a selection of these counts gets: those that are given, or as few as will do.

    Raises:
        ValueError: those given are too few.
    """
    fewest = max(largest(counts), 1)
    if given is None:
        return fewest
    report_few(given, fewest)
    return given


def report_few(slots: int, fewest: int) -> None:
    """Raise if there are fewer slots than a query keeps keys."""
    if slots < fewest:
        raise ValueError(f"select: slots = {slots}, but a query keeps {fewest} keys; give at least the largest limit.")


def wide(x: Tensor) -> Tensor:
    """Half formats are computed in float32."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def hash32(parts: tuple[int, ...], query: Int[Tensor, "..."], key: Int[Tensor, "..."]) -> Int[Tensor, "..."]:
    """32 well-mixed bits of the parts, query and key; murmur3's finaliser between them, in int64."""
    return mix((mix((query + hash_state(parts)) & MASK32)) ^ key)


def hash_state(parts: tuple[int, ...]) -> int:
    """What the parts leave for query and key."""
    state = 0x9E3779B9
    for part in parts:
        state = mix(state ^ (part & MASK32))
    return state


Word = TypeVar("Word", int, Tensor)


def mix(x: Word) -> Word:
    """murmur3's finaliser on 32 bits."""
    x = x & MASK32
    x = ((x ^ (x >> 16)) * 0x85EBCA6B) & MASK32
    x = ((x ^ (x >> 13)) * 0xC2B2AE35) & MASK32
    return x ^ (x >> 16)


def check_scores(scores: Tensor, legal: Tensor, first: int = 0) -> None:
    """Raise if a legal key's score is not a number: such a key cannot be ranked.

    Args:
        first: number of the first of these queries among those of the call.
    """
    broken = scores.isnan() & legal
    if broken.any():
        report_broken(broken.sum(-1), first)


def report_broken(broken: Int[Tensor, "batch group time"], first: int = 0) -> None:
    """Raise, told how many scores of each query are not a number, and the number of the first of these queries."""
    report_nan(int(broken.sum()), first + int(broken.flatten(0, 1).any(0).nonzero()[0]))


def report_nan(number: int, query: int) -> None:
    """Raise if index scores are not a number, told how many and the number of the first query that has one."""
    if number:
        raise FloatingPointError(
            f"index scores: {number} are NaN, the first for query {query} of this call. "
            "The indexer or its inputs hold NaN or infinite values, or such as their number format does not hold; none "
            "of these keys was selected."
        )
