"""The GPU backend where there is no GPU: what it refuses, that it compiles, and the contract under the interpreter."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from contract.cases import random_selection

from dsa import ops
from dsa.ops import Call, Hash, IndexFeatures, dispatch, triton
from dsa.ops.triton import launch, sizes
from dsa.ops.triton.attend import listed

ROOT = Path(__file__).parents[2]
needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")
without_gpu = pytest.mark.skipif(torch.cuda.is_available() or launch.interpreted(), reason="Triton computes here")


@pytest.fixture
def computes_here(monkeypatch):
    """As if tensors of the CPU were those of a GPU."""
    monkeypatch.setattr(triton, "unavailable", lambda: None)
    monkeypatch.setattr(triton, "device_type", lambda: "cpu")


def features(**options):
    return IndexFeatures(torch.ones(1, 1, 8, 2, 4), torch.ones(1, 1, 8 // options.get("unit", 1), 4), **options)


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
        (Call(scorer=features(unit=4)), "token by token"),
        (Call(scorer=features(), trims=True), "no statistics of a row for a trim rule"),
        (Call(learner=features()), "know no indexer loss"),
    ],
)
@pytest.mark.usefixtures("computes_here")
def test_it_says_what_it_does_not_cover(call, words):
    assert words in triton.covers(call)


@pytest.mark.usefixtures("computes_here")
def test_auto_takes_it_in_silence_for_what_it_covers_where_the_cpu_kernels_do_not_compute(monkeypatch, caplog):
    monkeypatch.setattr(dispatch.native, "covers", lambda call: "they compute on the CPU.")
    dispatch.tell.cache_clear()
    assert dispatch.serving("auto", Call((torch.ones(1),), scorer=Hash(1), cap=30.0)) is triton
    assert not caplog.records
    assert dispatch.serving("auto", Call(scorer=features(unit=4))).name == "blocked"
    (record,) = caplog.records
    assert "they compute on the CPU. the Triton kernels select token by token" in record.message
    dispatch.tell.cache_clear()


def test_the_lists_hold_for_each_key_the_queries_that_selected_it_in_their_order():
    selection = random_selection(2, 3, 20, 15, 6)
    starts, lists = listed(selection.positions, 15)
    for batch in range(2):
        for group in range(3):
            rows = [row[row >= 0].tolist() for row in selection.positions[batch, group]]
            for key in range(15):
                begin, end = starts[batch, group, key : key + 2].tolist()
                assert lists[batch, group, begin:end].tolist() == [t for t, row in enumerate(rows) if key in row]


@needs_triton
@pytest.mark.slow
@pytest.mark.timeout(1800)  # a minute of one core; many where others share it
def test_the_contract_is_kept_under_the_interpreter():
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    line = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-p", "no:cacheprovider", "tests/ops/contract"]
    # Without long rows, and without much of what other backends serve.
    line += ["-k", "not estimate and not entropy and not (later_queries_select and (recency or triton-True))"]
    done = subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:]


REAL, INT, LONG, HALF = "*fp32", "*i32", "*i64", "*bf16"
TYPES = dict.fromkeys(("q", "k", "v", "queries", "weights"), HALF)
TYPES |= dict.fromkeys(("logsumexp", "sink", "out", "grad", "delta", "grad_q", "grad_k", "grad_v", "scores"), REAL)
TYPES |= dict.fromkeys(("positions", "counts", "lists", "ranks", "zones", "thresholds", "last_ties", "broken"), INT)
TYPES |= {"starts": LONG, "scale": "fp32", "cap": "fp32"}
ROWS = {"ROWS": sizes.ROWS, "HEADS": sizes.HEADS, "SLOTS": sizes.slots(32), "DIM": 32, "CAP": True}
KERNELS = {
    "attend_kernels.forward": ROWS | {"SINK": True},
    "attend_kernels.dense_logsumexp": {"SINK": True, "CAP": True, "TILE": sizes.TILE, "DIM": 32},
    "backward_kernels.queries_gradient": ROWS,
    "backward_kernels.keys_gradient": {"CAP": True, "KEYS": sizes.KEYS, "LIST": sizes.LIST, "DIM": 32},
    "select_kernels.score": {"ZONES": 2, "RELU": True, "WEIGHTED": True, "TILE": sizes.TILE, "DIM": 32},
    "select_kernels.threshold": {"ROWS": sizes.ROWS, "SPAN": sizes.SPAN},
    "select_kernels.compact": {"ZONES": 2, "ROWS": sizes.ROWS, "SPAN": sizes.SPAN},
}


@needs_triton
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION")
@pytest.mark.parametrize("name", KERNELS)
def test_the_kernels_compile_for_a_gpu_that_is_not_here(name):
    from triton import compile as compiled
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    module, _, kernel = name.partition(".")
    function = getattr(__import__(f"dsa.ops.triton.{module}", fromlist=[kernel]), kernel)
    types = TYPES | ({"keys": HALF} if name == "select_kernels.score" else {})  # a number of keys elsewhere
    types |= dict.fromkeys(KERNELS[name], "constexpr")
    signature = {x: types.get(x, "i32") for x in function.arg_names}
    made = compiled(ASTSource(function, signature, KERNELS[name]), target=GPUTarget("cuda", 80, 32))
    assert made.metadata.shared < 96 * 1024  # bytes that every GPU since 2020 has for a program
    assert ".local" not in made.asm["ptx"]
