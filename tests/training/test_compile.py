"""`compile=true`: where layers are compiled and where it is refused. The numbers: tests/backbones/test_compiled.py."""

import json
import os
import sys

import pytest
import torch
from backbones.toy import GroupedQueries
from conftest import QUIET, SMALL
from forked import launch

from dsa import compose
from dsa.backbones import SparseTransformer
from dsa.build import build_data
from dsa.training.execute import train
from dsa.training.module import Training
from dsa.training.rehearsal import rehearse

STEPS = ["recipe.dense.steps=2", "recipe.warmup.steps=2", "recipe.sparse.steps=2"]

ENTRIES = ["model.kv=csa", "indexer=deepseek_v4_csa", "indexer.unit=4", "indexer.heads=2", "indexer.dim=16",
           "indexer.rotary_dim=8", "pattern=causal", "selector.k=16", "model.kv_window=8"]  # fmt: skip


@pytest.fixture
def told(monkeypatch):
    """Stages whose layers were to be compiled; nothing is."""
    seen = []
    monkeypatch.setattr(SparseTransformer, "compile_layers", lambda model: seen.append(len(model.layer_list)))
    monkeypatch.setattr(torch, "compile", lambda function: function)
    return seen


@pytest.mark.slow
def test_layers_are_compiled_where_the_backbone_learns(told, outputs, monkeypatch):
    stages = []
    monkeypatch.setattr(Training, "on_train_start", lambda module: stages.append((module.stage.name, len(told))))
    settings = [*SMALL, *QUIET, *STEPS, f"output_dir={outputs}"]
    assert train(compose(settings)).status == "finished" and not told
    stages.clear()
    assert train(compose([*settings, "compile=true"])).status == "finished"
    before = 1  # the rehearsal, on a model that is thrown away
    assert stages == [("warmup", before + 1), ("sparse", before + 2), ("sparse", before + 3)], "and the dense control's"
    assert set(told) == {2}


WHOLE = """
import json, sys
import torch
from torch import _dynamo as dynamo
from dsa import compose, train

def traced(layer, **options):  # by dynamo alone: what torch's own compiler makes of it takes half a minute
    layer._compiled_call_impl = torch.compile(layer._call_impl, backend="eager", **options)

torch.nn.Module.compile = traced
found = {}
for compiles in ("false", "true"):
    result = train(compose([*sys.argv[1:], f"compile={compiles}"]), show=False)
    found[compiles] = [result.status, result.val_loss, result.dense_val_loss, dynamo.utils.counters["frames"]["ok"]]
print(json.dumps(found))
"""


@pytest.mark.slow
def test_a_run_whose_layers_dynamo_traces_ends_as_one_whose_layers_it_does_not(outputs, tmp_path):
    script = tmp_path / "whole.py"
    script.write_text(WHOLE)
    settings = [*SMALL, *QUIET, *STEPS, "memory=checkpoint", "dtype=fp32", f"output_dir={outputs}", *ENTRIES]
    done = launch([sys.executable, str(script), *settings], os.environ | {"OMP_NUM_THREADS": "1"})
    said, _ = done.communicate(timeout=600)
    assert done.returncode == 0, said[-4000:]
    plain, compiled = json.loads(said.splitlines()[-1]).values()
    assert plain[0] == compiled[0] == "finished" and plain[3] == 0 < compiled[3]
    assert compiled[1:3] == pytest.approx(plain[1:3], abs=1e-5)


def test_a_backbone_that_names_no_layers_is_refused():
    with pytest.raises(ValueError, match=r"^compile = true: GroupedQueries does not say .* compile=false"):
        GroupedQueries(64, 32, 2).compile_layers()


def test_where_torch_cannot_compile_it_is_refused(told, monkeypatch):
    def broken(function):
        raise RuntimeError("no compiler\nand a long story")

    rehearsed(compose(SMALL))
    monkeypatch.setattr(torch, "compile", broken)
    rehearsed(compose(SMALL))
    with pytest.raises(
        ValueError, match=r"^compile = true: torch\.compile .* here \(no compiler\); give compile=false\.$"
    ):
        rehearsed(compose([*SMALL, "compile=true"]))


def rehearsed(spec):
    rehearse(spec, build_data(spec))


@pytest.mark.parametrize("given", ["1", "yes please", "null"])
def test_it_is_true_or_false(given):
    with pytest.raises(ValueError, match=r"^compile = "):
        compose([*SMALL, f"compile={given}"])
