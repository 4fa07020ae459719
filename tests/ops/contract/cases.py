"""What the contract is tried on: tensors from a seed, selections, and how far two answers lie apart."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from hypothesis import HealthCheck, settings

from dsa.ops import Call, Selection, TrueAttention, Zone, compiler, native, reference
from dsa.ops.triton.launch import interpreted

CAUSAL = (Zone(None),)
BUILDS = [pytest.param(build, marks=pytest.mark.slow) for build in ("-march=haswell", "-march=x86-64", "threads")]
GPU = os.environ.get("CONTRACT_DEVICE", "cpu")  # where Triton's kernels compute, alone
TRITON_ALONE = interpreted() or GPU != "cpu"
BACKENDS = ["triton"] if TRITON_ALONE else ["reference", "blocked", "cpu", *BUILDS]
WITHOUT_MATRIX_UNIT = pytest.param("-mno-amx-bf16", marks=pytest.mark.slow)
# An interpreted program costs milliseconds: BATCH texts where a test is of something else than how many there are.
SEEDS, EXAMPLES, BATCH = (1, 2, 1) if interpreted() else (4, 50, 2)
examples = settings(deadline=None, max_examples=EXAMPLES, suppress_health_check=list(HealthCheck), derandomize=True)


@contextmanager
def kernels_built(build: str) -> Iterator[None]:
    """The kernels for this processor ("cpu"), for a lesser one, or on std::thread instead of OpenMP ("threads")."""
    with pytest.MonkeyPatch.context() as patch:
        if native.unavailable() is not None:
            pytest.skip(str(native.unavailable()))
        if build == "threads":
            patch.setattr(compiler, "torch_has_openmp", lambda: False)
        elif build != "cpu":
            if "avx2" not in compiler.processor():
                pytest.skip("this processor does not run the code of x86 processors with AVX2")
            patch.setenv("CXXFLAGS", build)
        compiler.library.cache_clear()
        yield
    compiler.library.cache_clear()


def randoms(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def wholes(*shape, seed=0):
    """Small whole numbers: exact in any order of summation, and full of ties."""
    return torch.randint(-2, 3, shape, generator=torch.Generator().manual_seed(seed + sum(shape))).float()


def doubled(x):
    """A tensor, or all tensors of a tuple, in float64 and apart from whatever made them."""
    if isinstance(x, torch.Tensor):
        return x.detach().double().requires_grad_(x.requires_grad) if x.is_floating_point() else x
    return type(x)(*map(doubled, x)) if isinstance(x, tuple) and hasattr(x, "_fields") else x


def far(got, wanted, least=1e-12):
    """Largest difference relative to the largest value, or to `least` where all are smaller."""
    assert got.shape == wanted.shape
    if not got.numel():
        return 0.0
    return ((got.double() - wanted.double()).abs().max() / wanted.double().abs().max().clamp(min=least)).item()


def same(a: Selection, b: Selection) -> bool:
    return torch.equal(a.positions, b.positions) and torch.equal(a.counts, b.counts)


def qkv(batch, heads, time, keys, dim, seed=0, kv_heads=None):
    """As a projection gives them: the heads of one token side by side."""
    shapes = (heads, time), (kv_heads or heads, keys), (kv_heads or heads, keys)
    return [
        randoms(batch, n, h * dim, seed=seed + i).view(batch, n, h, dim).transpose(1, 2).requires_grad_()
        for i, (h, n) in enumerate(shapes)
    ]


def random_selection(batch, groups, time, keys, most, seed=0):
    """Each query keeps any number of any keys."""
    generator = torch.Generator().manual_seed(seed)
    counts = torch.randint(0, min(most, keys) + 1, (batch, groups, time), generator=generator)
    order = torch.rand(batch, groups, time, keys, generator=generator).argsort(-1).argsort(-1)
    return reference.from_mask(order < counts[..., None])


def clustered(time, keys, near, far, seed=0):
    """Each query's nearest keys and a few others: whole blocks along the diagonal, single pairs elsewhere."""
    generator = torch.Generator().manual_seed(seed)
    distance = (torch.arange(time)[:, None] + keys - time) - torch.arange(keys)
    chosen = (distance >= 0) & ((distance < near) | (torch.rand(time, keys, generator=generator) < far / keys))
    return reference.from_mask(chosen[None, None])


def served(backend, cap):
    """The cap, if a backend serves calls with one; else none."""
    return cap if backend.covers(Call(cap=cap)) is None else None


def attention(q, k, selection=None, groups=1, **options):
    """The attention over a selection, or over all causal keys, as a target."""
    if selection is None:
        logsumexp = reference.dense_logsumexp(q, k, **options)
    else:
        logsumexp = reference.attend(q, k, k, selection, **options)[1]
    return TrueAttention(
        q.detach(), k.detach(), logsumexp.detach(), groups, scale=options.get("scale"), cap=options.get("cap")
    )
