"""`compile=true`: where layers are compiled and where it is refused. The numbers: tests/backbones/test_compiled.py."""

import pytest
from backbones.toy import GroupedQueries
from conftest import QUIET, SMALL

from dsa import compose
from dsa.backbones import SparseTransformer
from dsa.graph import graph_of
from dsa.ops import native
from dsa.training.execute import train
from dsa.training.module import Training
from dsa.training.settings import check_settings

STEPS = ["recipe.dense.steps=2", "recipe.warmup.steps=2", "recipe.sparse.steps=2"]


@pytest.fixture
def told(monkeypatch):
    """Stages whose layers were to be compiled; nothing is."""
    seen = []
    monkeypatch.setattr(SparseTransformer, "compile_layers", lambda model: seen.append(len(model.layer_list)))
    return seen


@pytest.mark.slow
def test_layers_are_compiled_where_the_backbone_learns(told, outputs, monkeypatch):
    stages = []
    monkeypatch.setattr(Training, "on_train_start", lambda module: stages.append((module.stage.name, len(told))))
    settings = [*SMALL, *QUIET, *STEPS, f"output_dir={outputs}"]
    assert train(compose(settings)).status == "finished" and not told
    stages.clear()
    assert train(compose([*settings, "compile=true"])).status == "finished"
    before = 1  # the settings are tried on a model that is thrown away
    assert stages == [("warmup", before + 1), ("sparse", before + 2), ("sparse", before + 3)], "and the dense control's"
    assert set(told) == {2}


def test_what_was_compiled_is_another_base_and_joint_training_but_no_other_indexer_recipe():
    one, other = (graph_of(compose([*SMALL, f"compile={flag}"]), None) for flag in ("false", "true"))
    assert one.base.hash != other.base.hash and one.joint.hash != other.joint.hash
    assert one.indexers.identity == other.indexers.identity


def test_a_backbone_that_names_no_layers_is_refused():
    with pytest.raises(ValueError, match=r"^compile = true: GroupedQueries does not say .* compile=false"):
        GroupedQueries(64, 32, 2).compile_layers()


def test_without_a_compiler_it_is_refused(told, monkeypatch):
    monkeypatch.setattr(native, "unavailable", lambda: "no C++ compiler found.")
    check_settings(compose(SMALL))
    with pytest.raises(ValueError, match=r"^compile = true: no C\+\+ compiler found\. Or give compile=false\.$"):
        check_settings(compose([*SMALL, "compile=true"]))


@pytest.mark.parametrize("given", ["1", "yes please", "null"])
def test_it_is_true_or_false(given):
    with pytest.raises(ValueError, match=r"^compile = "):
        compose([*SMALL, f"compile={given}"])
