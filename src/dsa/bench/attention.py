"""One layer's sparse attention against dense attention: select, attend and the indexer loss, forward and training."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dsa import ops
from dsa.bench import peers as others
from dsa.bench.measure import Work, machine, peak_memory, take_turns
from dsa.ops import IndexFeatures, Recency, Zone
from dsa.ops.cost import attention_flops, causal_pairs, index_pair_flops, indexer_loss_flops, kept_pairs
from dsa.precision import Precision

Rows = list[dict[str, Any]]


def measure(
    lengths: list[int], k: int, index: tuple[int, int], heads: int, dim: int, batch: int, backend: str, rounds: int,
    peers: bool, formats: dict[str, Precision],
) -> Rows:  # fmt: skip
    """A row per (length, component, direction).

    `ratio` is against dense attention in float32, `ratio_fastest` against dense attention in whichever dtype is
    fastest here; that of a component compares it with all of dense attention. `peak_mb` counts neither inputs nor
    outputs.

    Args:
        index: heads and dims of the indexer.
        formats: number formats of the index scores, in which selecting is timed beside float32, rounding included.
    """
    rows: Rows = []
    for length in lengths:
        works = sparse_works(length, k, index, heads, dim, batch, backend)
        works |= selecting(formats, length, k, index, batch, backend)
        dense = dense_works(length, heads, dim, batch)
        peer = others.works(length, k, index, heads, dim, batch) if peers else {}
        times = take_turns({**works, **dense, **peer}, rounds)
        flops = costs(length, k, index, heads, dim, batch)
        for name in [*works, *peer]:
            component, direction = name.split("/")
            reference = f"float32/{direction}"
            fastest = min((n for n in dense if n.endswith(direction)), key=lambda n: times[n])
            row = {
                "length": length,
                "component": component,
                "direction": direction,
                "ms": times[name],
                "dense_ms": times[reference],
                "ratio": times[reference] / times[name],
                "dense_ms_by_dtype": {n.split("/")[0]: times[n] for n in dense if n.endswith(direction)},
                "fastest_dtype": fastest.split("/")[0],
                "ratio_fastest": times[fastest] / times[name],
                "peak_mb": peak_memory({**works, **peer}[name]) / 1e6,
                "dense_peak_mb": peak_memory(dense[reference]) / 1e6,
                "flops": flops.get(name),
                "gflops_per_s": flops[name] / times[name] / 1e6 if name in flops else None,
                "machine": machine(),
            }
            if component == "loss":
                row["mass_kept"] = mass_kept(length, k, heads, dim, batch, backend)
            rows.append(row)
    return rows


def mass_kept(length: int, k: int, heads: int, dim: int, batch: int, backend: str) -> bool:
    """Whether attending leaves the probabilities that the indexer loss needs; else the loss computes them again."""
    q, k_, v, _ = projections(length, heads, dim, batch)
    limit = torch.full((batch, 1, length), k)
    selection = ops.select(Recency(), (Zone(first=None),), limit, backend=backend)
    with torch.no_grad():
        return ops.attend_with_target(q, k_, v, selection, backend=backend)[1].mass is not None


def sparse_works(
    length: int, k: int, index: tuple[int, int], heads: int, dim: int, batch: int, backend: str
) -> dict[str, Work]:
    """What is timed, under "component/direction"."""
    q, k_, v, grad = projections(length, heads, dim, batch)
    features = random_features(length, index, batch)
    index_inputs = [x for x in features[:3] if isinstance(x, Tensor)]
    limit, zones = torch.full((batch, 1, length), k), (Zone(first=None),)

    def select() -> Any:
        return ops.select(features, zones, limit, backend=backend)

    selection = select()
    target = ops.attend_with_target(q, k_, v, selection, backend=backend)[1]

    def attend() -> Any:
        with torch.no_grad():
            return ops.attend(q, k_, v, selection, backend=backend)

    def both() -> Any:
        with torch.no_grad():
            chosen = select()
            return [*ops.attend(q, k_, v, chosen, backend=backend), *chosen]

    def loss() -> Any:
        with torch.no_grad():
            return [ops.indexer_loss(features, target, selection, backend=backend)]

    def attend_train() -> Any:
        out, lse = ops.attend(q, k_, v, selection, backend=backend)
        return [out, lse, *torch.autograd.grad(out, (q, k_, v), grad)]

    def loss_train() -> Any:
        value = ops.indexer_loss(features, target, selection, backend=backend)
        return [value, *torch.autograd.grad(value, index_inputs)]

    def step() -> Any:
        chosen = select()
        out, attention = ops.attend_with_target(q, k_, v, chosen, backend=backend)
        value = ops.indexer_loss(features, attention, chosen, backend=backend)
        grads = torch.autograd.grad((out, value), (q, k_, v, *index_inputs), (grad, torch.ones_like(value)))
        return [out, attention.logsumexp, value, *grads, *chosen]

    return {
        "select/forward": select,
        "attend/forward": attend,
        "loss/forward": loss,
        "total/forward": both,
        "select/train": select,
        "attend/train": attend_train,
        "loss/train": loss_train,
        "total/train": step,
    }


def selecting(
    formats: dict[str, Precision], length: int, k: int, index: tuple[int, int], batch: int, backend: str
) -> dict[str, Work]:
    """Selecting in each number format, under "select FORMAT/forward"."""
    features = random_features(length, index, batch)
    limit, zones = torch.full((batch, 1, length), k), (Zone(first=None),)

    def work(precision: Precision) -> Work:
        def select() -> Any:
            with torch.no_grad():
                return ops.select(precision.cast(features), zones, limit, backend=backend)

        return select

    return {f"select {name}/forward": work(precision) for name, precision in formats.items()}


def dense_works(length: int, heads: int, dim: int, batch: int) -> dict[str, Work]:
    """Causal scaled_dot_product_attention under "dtype/direction"."""

    def works(dtype: torch.dtype) -> tuple[Work, Work]:
        q, k, v, grad = (x.detach().to(dtype).requires_grad_() for x in projections(length, heads, dim, batch))

        def forward() -> Any:
            with torch.no_grad():
                return [F.scaled_dot_product_attention(q, k, v, is_causal=True)]

        def train() -> Any:
            out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            return [out, *torch.autograd.grad(out, (q, k, v), grad.detach())]

        return forward, train

    named: dict[str, Work] = {}
    for dtype in (torch.float32, torch.bfloat16):
        name = str(dtype).removeprefix("torch.")
        named[f"{name}/forward"], named[f"{name}/train"] = works(dtype)
    return named


def projections(length: int, heads: int, dim: int, batch: int) -> list[Tensor]:
    """q, k, v and a gradient of the output, laid out as linear layers give them."""
    torch.manual_seed(0)
    make: Callable[[], Tensor] = lambda: torch.randn(batch, length, heads * dim).unflatten(2, (heads, dim))
    return [make().transpose(1, 2).requires_grad_() for _ in range(3)] + [make().transpose(1, 2)]


def random_features(length: int, index: tuple[int, int], batch: int) -> IndexFeatures:
    """Independent normal features: neighbouring queries share few keys, which is the hardest case for a cache."""
    torch.manual_seed(1)
    heads, dim = index
    shapes = (batch, 1, length, heads, dim), (batch, 1, length, dim), (batch, 1, length, heads)
    queries, keys, weights = (torch.randn(shape) for shape in shapes)
    return IndexFeatures(queries.requires_grad_(), keys.requires_grad_(), weights.abs().requires_grad_())


def costs(length: int, k: int, index: tuple[int, int], heads: int, dim: int, batch: int) -> dict[str, float]:
    """Floating-point operations of each component; as if none kept anything for another."""
    pairs = kept_pairs(length, k)
    select = batch * index_pair_flops(*index) * causal_pairs(length)
    attend = batch * attention_flops(heads, dim, pairs)
    backward = batch * attention_flops(heads, dim, pairs, backward=True)
    loss = batch * indexer_loss_flops(*index, heads, dim, pairs)
    loss_train = loss + batch * indexer_loss_flops(*index, heads, dim, pairs, backward=True)
    return {
        "select/forward": select,
        "attend/forward": attend,
        "loss/forward": loss,
        "total/forward": select + attend,
        "select/train": select,
        "attend/train": attend + backward,
        "loss/train": loss_train,
        "total/train": select + attend + backward + loss_train,
    }
