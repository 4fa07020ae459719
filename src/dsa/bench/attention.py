"""One layer's sparse attention against dense attention: select, attend and the indexer loss, forward and training."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from dsa import ops
from dsa.bench import peers as others
from dsa.bench.layer import Layer
from dsa.bench.measure import Work, machine, peak_memory, take_turns
from dsa.ops import Recency, Zone
from dsa.ops.cost import attention_flops, causal_pairs, index_pair_flops, indexer_loss_flops, kept_pairs
from dsa.precision import Precision

Rows = list[dict[str, Any]]


def measure(layer: Layer, lengths: list[int], rounds: int, peers: bool, formats: dict[str, Precision]) -> Rows:
    """A row per (length, component, direction).

    `ratio` is against dense attention in the layer's dtype, `ratio_fastest` against dense attention in whichever dtype
    is fastest here; that of a component compares it with all of dense attention. `peak_mb` counts neither inputs nor
    outputs.

    Args:
        formats: number formats of the index scores, in which selecting is timed beside float32, rounding included.
    """
    rows: Rows = []
    for length in lengths:
        works = sparse_works(length, layer) | selecting(formats, length, layer)
        dense = dense_works(length, layer)
        peer = others.works(length, layer) if peers else {}
        times = take_turns({**works, **dense, **peer}, rounds, layer.device)
        flops = costs(length, layer)
        for name in [*works, *peer]:
            component, direction = name.split("/")
            reference = f"{layer.called}/{direction}"
            fastest = min((n for n in dense if n.endswith(direction)), key=lambda n: times[n])
            row = {
                "length": length,
                "component": component,
                "direction": direction,
                "dtype": layer.called,
                "ms": times[name],
                "dense_ms": times[reference],
                "ratio": times[reference] / times[name],
                "dense_ms_by_dtype": {n.split("/")[0]: times[n] for n in dense if n.endswith(direction)},
                "fastest_dtype": fastest.split("/")[0],
                "ratio_fastest": times[fastest] / times[name],
                "peak_mb": peak_memory({**works, **peer}[name], layer.device) / 1e6,
                "dense_peak_mb": peak_memory(dense[reference], layer.device) / 1e6,
                "flops": flops.get(name),
                "gflops_per_s": flops[name] / times[name] / 1e6 if name in flops else None,
                "machine": machine(layer.device),
            }
            if component == "loss" and layer.device.type == "cpu":
                row["mass_kept"] = mass_kept(length, layer)
            rows.append(row)
    return rows


def mass_kept(length: int, layer: Layer) -> bool:
    """Whether attending leaves the probabilities that the indexer loss needs; else the loss computes them again."""
    q, k_, v, _ = layer.projections(length)
    selection = ops.select(Recency(), (Zone(first=None),), layer.limit(length), backend=layer.backend)
    with torch.no_grad():
        return ops.attend_with_target(q, k_, v, selection, backend=layer.backend)[1].mass is not None


def sparse_works(length: int, layer: Layer) -> dict[str, Work]:
    """What is timed, under "component/direction"."""
    (q, k_, v, grad), features, backend = layer.projections(length), layer.features(length), layer.backend
    index_inputs = [x for x in features[:3] if isinstance(x, Tensor)]
    limit, zones = layer.limit(length), (Zone(first=None),)

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


def selecting(formats: dict[str, Precision], length: int, layer: Layer) -> dict[str, Work]:
    """Selecting in each number format, under "select FORMAT/forward"."""
    features, limit, zones = layer.features(length), layer.limit(length), (Zone(first=None),)

    def work(precision: Precision) -> Work:
        def select() -> Any:
            with torch.no_grad():
                return ops.select(precision.cast(features), zones, limit, backend=layer.backend)

        return select

    return {f"select {name}/forward": work(precision) for name, precision in formats.items()}


def dense_works(length: int, layer: Layer) -> dict[str, Work]:
    """Causal scaled_dot_product_attention under "dtype/direction": in the layer's dtype, and in bfloat16."""
    grouped = layer.heads != layer.kv_heads

    def works(dtype: torch.dtype) -> tuple[Work, Work]:
        q, k, v, grad = (x.detach().to(dtype).requires_grad_() for x in layer.projections(length))

        def attended() -> Tensor:
            with fused(q):
                return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=grouped)

        def forward() -> Any:
            with torch.no_grad():
                return [attended()]

        def train() -> Any:
            out = attended()
            return [out, *torch.autograd.grad(out, (q, k, v), grad.detach())]

        return forward, train

    named: dict[str, Work] = {}
    for dtype in dict.fromkeys((layer.dtype, torch.bfloat16)):
        name = str(dtype).removeprefix("torch.")
        named[f"{name}/forward"], named[f"{name}/train"] = works(dtype)
    return named


def fused(q: Tensor) -> AbstractContextManager[object]:
    """FlashAttention and no other, for half formats on a CUDA device: an error where it does not serve."""
    return sdpa_kernel(SDPBackend.FLASH_ATTENTION) if q.is_cuda and q.dtype != torch.float32 else nullcontext()


def costs(length: int, layer: Layer) -> dict[str, float]:
    """Floating-point operations of each component; as if none kept anything for another."""
    index, heads, dim, batch = layer.index, layer.heads, layer.dim, layer.batch
    pairs = kept_pairs(length, layer.k)
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
