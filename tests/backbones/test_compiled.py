"""torch.compile around the attention: the same numbers, and nothing of the ops in a graph."""

import json
import sys
from pathlib import Path

import pytest
import torch
from forked import launch
from torch import _dynamo as dynamo

from dsa import ops
from dsa.ops import Recency, Zone, native

BACKENDS = ["reference", "blocked", pytest.param("cpu", marks=pytest.mark.skipif(
    native.unavailable() is not None, reason="no compiler"))]  # fmt: skip
PROGRAM = Path(__file__).with_name("compiled.py")


def compared(*arguments):
    """What the program found of a compiled model and an uncompiled one."""
    done = launch([sys.executable, str(PROGRAM), *arguments])
    said, _ = done.communicate(timeout=1200)
    assert done.returncode == 0, said[-4000:]
    return json.loads(said.splitlines()[-1])


@pytest.mark.slow
def test_a_compiled_model_learns_what_it_learns_uncompiled_and_its_attention_is_in_no_graph():
    found = compared("sparse")
    assert found["far"] < 1e-6
    assert any("indexer" in name for name in found["learns"]) and len(found["learns"]) > 10
    blocks = "norm and convolution, projections, the output's, feed-forward"
    assert len(found["graphs"]) == 2 + 4 + 2, f"positions, angles; of all blocks together {blocks}; losses' mean, head"
    called = " ".join(name for graph in found["graphs"] for name in graph)
    assert all(part in called for part in ("rms_norm", "conv1d", "linear", "gelu", "cos"))
    assert not any(part in called for part in ("einsum", "topk", "sort", "softmax", "logsumexp", "scatter", "relu"))


@pytest.mark.slow
def test_so_does_one_that_recomputes_its_layers():
    assert compared("sparse", "memory=checkpoint")["far"] < 1e-6


@pytest.mark.slow
def test_dense_attention_is_one_graph_with_everything_else():
    found = compared("dense")
    assert len(found["graphs"]) == 1 and found["far"] < 1e-6


@pytest.mark.slow
@pytest.mark.timeout(1800)  # half a minute of one core; many where others share it
@pytest.mark.skipif(native.unavailable() is not None, reason="no compiler")
def test_layers_compiled_as_a_run_has_them_give_the_same_numbers():
    found = compared("layers", "memory=checkpoint")
    assert found["far"] < 1e-6 and found["made"] >= 4


@pytest.mark.slow
@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize("backend", BACKENDS)
def test_an_op_in_compiled_code_of_ones_own_runs_as_it_is(backend):
    graphs = []

    def seen(module, _):
        graphs.extend(str(node.target) for node in module.graph.nodes if node.op.startswith("call"))
        return module.forward

    def attended(q, limit):
        selection = ops.select(Recency(), (Zone(None),), limit, backend=backend)
        return ops.attend(q * 2, q, q, selection, backend=backend)[0].sin()

    dynamo.reset()
    q, limit = torch.randn(1, 2, 20, 8, requires_grad=True), torch.full((1, 1, 20), 5)
    outs = attended(q, limit), torch.compile(attended, backend=seen)(q, limit)
    dynamo.reset()
    assert torch.equal(*outs)
    assert torch.equal(*(torch.autograd.grad(out.sum(), q)[0] for out in outs))
    assert sorted(graphs) == ["<built-in function mul>", "sin"]
