"""The GPU backend where there is no GPU: what it refuses, that it compiles, and the contract under the interpreter."""

import importlib
import os
import subprocess
import sys
from collections import deque
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from contract.cases import random_selection
from torch.utils._python_dispatch import TorchDispatchMode

from dsa import build_model, compose, ops
from dsa.backbones import Pass
from dsa.ops import Band, Call, Hash, IndexFeatures, TrueAttention, Zone, dispatch, faults, triton
from dsa.ops.scores import report_nan, report_outside
from dsa.ops.triton import launch
from dsa.ops.triton.attend import listed

ROOT = Path(__file__).parents[2]
needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")
without_gpu = pytest.mark.skipif(torch.cuda.is_available() or launch.interpreted(), reason="Triton computes here")


@pytest.fixture
def computes_here(monkeypatch):
    """As if tensors of the CPU were those of a GPU."""
    monkeypatch.setattr(triton, "unavailable", lambda: None)
    monkeypatch.setattr(triton, "device_type", lambda: "cpu")


def features(dim=4, **options):
    return IndexFeatures(torch.ones(1, 1, 8, 2, dim), torch.ones(1, 1, 8 // options.get("unit", 1), dim), **options)


@without_gpu
def test_on_a_cpu_it_is_refused_in_a_sentence():
    with pytest.raises(
        ValueError, match=r"^ops = triton: the Triton kernels need a CUDA device, and there is none here"
    ):
        ops.checked_backend("triton")


def test_without_triton_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(launch.importlib.util, "find_spec", lambda name: None)
    assert launch.unavailable.__wrapped__() == "Triton is not installed: pip install 'dsa[gpu]', on Linux."


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (Call((torch.ones(1).double(),)), "compute in float32, not in float64"),
        (Call(device=torch.device("meta")), "compute on CUDA devices, not on meta"),
        (Call((torch.ones(1, 1, 1, 320),)), "heads of at most 256 dims, not 320"),
        (Call(learner=features(), emphasis=True), "count all queries and keys alike"),
        (Call(learner=features(unit=4, pool="max")), "score a unit by one key"),
        (Call(learner=features(bands=(Band(2, 4, 0),))), "no heads that score some distances alone"),
        (Call(learner=features(accumulate=torch.bfloat16)), "accumulate index scores in float32 alone"),
        (Call(learner=features(dim=320)), "score by heads of at most 256 dims, not 320"),
    ],
)
@pytest.mark.usefixtures("computes_here")
def test_it_says_what_it_does_not_cover(call, words):
    assert words in triton.covers(call)


@pytest.mark.usefixtures("computes_here")
def test_a_target_that_is_told_as_it_is_may_have_more_keys_than_a_head_dims():
    assert triton.covers(Call((torch.ones(1, 1, 8, 320),), learner=features())) is None


@pytest.mark.usefixtures("computes_here")
def test_auto_takes_it_in_silence_for_what_it_covers_where_the_cpu_kernels_do_not_compute(monkeypatch, caplog):
    monkeypatch.setattr(dispatch.native, "covers", lambda call: "they compute on the CPU.")
    dispatch.tell.cache_clear()
    assert dispatch.serving("auto", Call((torch.ones(1),), scorer=Hash(1), cap=30.0)) is triton
    assert not caplog.records
    assert dispatch.serving("auto", Call(learner=features(), emphasis=True)).name == "blocked"
    (record,) = caplog.records
    assert "they compute on the CPU. the Triton indexer losses count all queries and keys alike" in record.message
    dispatch.tell.cache_clear()


def test_the_lists_hold_for_each_key_the_queries_that_selected_it_in_their_order():
    selection = random_selection(2, 3, 20, 15, 6)
    starts, lists = listed(selection.positions, 15)
    for batch in range(2):
        for group in range(3):
            rows = [row[row >= 0].tolist() for row in selection.positions[batch, group]]
            for key in range(15):
                begin, end = starts[batch, group, key : key + 2].tolist()
                listed_rows = lists[batch, group, begin:end] // selection.positions.shape[-1]
                assert listed_rows.tolist() == [t for t, row in enumerate(rows) if key in row]


class NoCopies(TorchDispatchMode):
    """Raises where a tensor goes from one device to another: whoever copies waits."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default):
            devices = {x.device.type for x in (*args, out) if isinstance(x, torch.Tensor) and x.dim()}
            assert len(devices) < 2, f"{func} from one of {devices} to the other"
        return out


@pytest.fixture
def no_numbers(monkeypatch):
    """Tensors of the device "meta" have no numbers, so that whoever wants to know one raises; kernels do nothing."""
    monkeypatch.setattr(triton, "unavailable", lambda: None)
    monkeypatch.setattr(triton, "device_type", lambda: "meta")
    monkeypatch.setattr(faults, "findings", deque())
    monkeypatch.setattr(faults, "arrived", lambda finding: False)
    for module in ("attend", "select", "learner", "dense_loss", "selected_loss"):
        monkeypatch.setattr(importlib.import_module(f"dsa.ops.triton.{module}"), "launch", lambda *_, **__: None)
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: False)  # it knows no such device
    with torch.device("meta"), NoCopies():
        yield


@pytest.mark.slow
@needs_triton
@pytest.mark.usefixtures("no_numbers")
def test_the_ops_ask_the_device_nothing():
    q, k, v = (torch.randn(2, heads, 50, 8, requires_grad=True) for heads in (4, 2, 2))
    for unit, trim in ((1, None), (4, lambda rows: rows.forced + 5)):
        shapes = (2, 2, 50, 2, 4), (2, 1, 50 // unit, 4), (2, 2, 50, 2)
        own = IndexFeatures(*(torch.randn(*x, requires_grad=True) for x in shapes), unit=unit)
        zones, limit = (Zone(3, keep="all"), Zone(None, 4)), torch.full((2, 1, 50), 9)
        selection = ops.select(own, zones, limit, trim, slots=9, backend="triton")
        out, target = ops.attend_with_target(q, k, v, selection, 2, torch.zeros(4), backend="triton")
        dense = TrueAttention(q.detach(), k.detach(), ops.dense_logsumexp(q, k, backend="triton"))
        losses = ops.indexer_losses([own, own], dense, backend="triton")
        total = out.sum() + ops.indexer_loss(own, target, selection, backend="triton") + sum(losses)
        assert all(x.device.type == "meta" for x in torch.autograd.grad(total, (q, k, v, *own[:3])))
    assert len(faults.findings) == 8  # twice of slots, of selections, of attention over them, of losses over them


COMPOSITIONS = [
    ["indexer=h2d16", "pattern=local_global", "selector=topk"],
    ["indexer=h4d8", "pattern=causal", "selector=adaptive_entropy"],
    ["indexer=ultra_light", "pattern=strided", "selector=adaptive_position", "selector.max_k=30"],
    ["indexer=block_mean", "pattern=causal", "selector=ratio_25"],
    ["indexer=h1d8", "pattern=learned", "selector=topk"],
    ["indexer=h1d8", "pattern=causal", "selector=progressive_linear", "model.kv=csa", "indexer=deepseek_v4_csa"],
    ["indexer=h2d16", "pattern=causal", "selector=topk", "precision=bf16"],
    ["indexer=h2d16", "pattern=causal", "selector=topk", "precision=fp16"],
    ["indexer=minimax_m3", "indexer.unit=8", "pattern=causal", "selector=topk"],
    ["indexer=multi_scale", "pattern=causal", "selector=topk"],
]


@pytest.mark.slow
@needs_triton
@pytest.mark.usefixtures("no_numbers")
@pytest.mark.parametrize("composition", COMPOSITIONS, ids=" ".join)
def test_a_whole_step_of_training_asks_the_device_nothing(composition):
    spec = compose([*composition, "model=tiny", "ops=triton", "seq_len=256"])
    model = build_model(spec, 64).train()
    tokens = torch.zeros(2, 256, dtype=torch.long)
    logits, losses = model.run(tokens, Pass(teach=True, progress=0.5))
    total = logits.sum() + sum(losses.values())
    total.backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None and "pattern" not in name]
    assert len(faults.findings) >= len(model.sites)


def test_a_fault_that_is_still_on_its_way_is_reported_by_the_next_that_looks(monkeypatch):
    there = False
    monkeypatch.setattr(faults, "findings", deque())
    monkeypatch.setattr(faults, "arrived", lambda finding: there)
    faults.watch(torch.tensor([0, 5]), report_nan)
    faults.watch(torch.tensor([3, 7]), report_nan)
    there = True
    with pytest.raises(FloatingPointError, match="3 are NaN, the first for query 7"):
        faults.watch(torch.tensor(4), lambda largest: report_outside(largest, 20))
    faults.settle()
    assert not faults.findings


LEFT_OUT = (  # by the interpreter, to which a test of a grid is half a second; the CPU has all of each grid
    "estimate",  # long rows
    "entropy and not sinks",
    "later_queries_select and not (False-False-features or False-True-units or (True-True and attention))",
    "few_queries_select and not (two_zones or (sinks and (features or units)))",
    "few_queries_attend and not 20",
    "forced_keys_are_kept_once and not (rule0 or forced2)",
)


@needs_triton
@pytest.mark.slow
@pytest.mark.timeout(1800)  # a minute of one core; many where others share it
def test_the_contract_is_kept_under_the_interpreter():
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    line = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-p", "no:cacheprovider", "tests/ops/contract"]
    line += ["-k", " and ".join(f"not ({left_out})" for left_out in LEFT_OUT)]
    done = subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:]
