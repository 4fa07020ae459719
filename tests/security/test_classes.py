"""A configuration names classes made for its slots and gives them plain settings; nothing else of it is run."""

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from conftest import QUIET, SMALL

import dsa
from dsa import compose, load_run
from dsa.analysis.__main__ import main as analysis
from dsa.spec import Spec, spec_from
from dsa.study.__main__ import main as study
from dsa.targets import SLOTS, TargetRefused

SMUGGLED = {  # harmless where it stands; Hydra's instantiate would make the class that the interpolation leads to
    "model.seed": "dsa.backbones.SparseTransformer",
    "model.d_model": {"_target_": "${..seed}"},
}
BUILD = {
    "_target_": "dsa.ops.compiler.build",
    "source": "x.cpp",
    "flags": ["-fplugin=evil.so"],
    "cache": "/tmp",
    "name": "x",
}
CHECKPOINT = {
    "_target_": "pytorch_lightning.LightningModule.load_from_checkpoint",
    "checkpoint_path": "evil.ckpt",
    "weights_only": False,
}
EVIL = {
    "a target in a setting, by an interpolation": (SMUGGLED, "model.d_model._target_"),
    "a function of this package": ({"indexer": BUILD}, "a function, no class"),
    "a method": ({"precision": CHECKPOINT}, "configs may only name classes"),
    "a class of another slot": ({"pattern": {"_target_": "dsa.selectors.Dense"}}, "subclass of dsa.patterns.Pattern"),
    "a class of no slot": ({"selector": {"_target_": "dsa.training.log.RunLog", "path": "x"}}, "subclass of"),
    "a class of another package, through this one": ({"pattern": {"_target_": "dsa.config.Path"}}, "may only name"),
    "a foreign selector, asked whether it wants an indexer": ({"selector._target_": "foreign.Alike"}, "may only name"),
    "arguments by their place": ({"indexer._args_": ["x"]}, "by their names"),
    "a node that is none": ({"precision": "foreign.run"}, "precision = foreign.run: give the name of an option"),
    "a class in place of a number": ({"seed": "foreign.run"}, "seed = foreign.run: give a whole number"),
}


@pytest.mark.parametrize(("changes", "words"), EVIL.values(), ids=EVIL.keys())
def test_loading_a_run_runs_nothing_that_its_folder_names(changes, words, run_folder, mark):
    folder = run_folder(changes)
    with pytest.raises(ValueError, match=words):
        load_run(folder)
    assert not mark.exists()


def test_a_sound_folder_is_loaded(run_folder):
    assert load_run(run_folder({})).vocab_size == 192


def test_selection_refuses_with_a_sentence(run_folder, mark, capsys):
    assert analysis(["selection", str(run_folder(SMUGGLED))]) == 2
    assert (
        "model.d_model._target_ = dsa.backbones.SparseTransformer: no class can be given there."
        in capsys.readouterr().err
    )
    assert not mark.exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "words", "apart"),
    [
        (SMUGGLED, "model.d_model._target_ = ", True),
        ({"data.source": {"_target_": "foreign.run"}}, "data.source._target_ = foreign.run: ", False),
        ({"optimizer": {"_target_": "foreign.run"}}, "optimizer._target_ = foreign.run: ", False),
    ],
    ids=["model", "data", "optimizer"],
)
def test_timing_a_study_refuses_with_a_sentence(changes, words, apart, run_folder, mark, capsys, monkeypatch):
    """In a process of its own, as the command has it; or in this one, which saves the imports."""
    if not apart:
        monkeypatch.setattr("dsa.study.timing.in_fresh_process", lambda call, *arguments: call(*arguments))
    folder = run_folder(changes)
    assert study(["time", str(folder.parent)]) == 2
    assert words in capsys.readouterr().err
    assert not mark.exists()


def spec_with(target: str, slot: str, *overrides: str) -> Spec:
    """The spec of a command line with another class in a slot."""
    content = deepcopy(compose([*SMALL, *QUIET, *overrides]).content)
    node = content
    for part in slot.split("."):
        node = node[part]
    node["_target_"] = target
    return spec_from(content)


@pytest.mark.parametrize("slot", SLOTS)
def test_every_slot_takes_its_own_kind_alone(slot):
    place = slot.replace("*", "near")
    for target in ("dsa.training.log.RunLog", "dsa.data.MQAR" if slot != "data.source" else "dsa.data.StdlibCorpus"):
        with pytest.raises(TargetRefused, match=f"{place}._target_ = {target}: give a subclass of {SLOTS[slot]}"):
            getattr(spec_with(target, place, "data=stdlib", "pattern=multi_head"), slot.split(".")[0]).make()


def test_an_option_that_the_slots_allow_is_made_with_its_inner_ones(tmp_path):
    spec = compose([*SMALL, *QUIET, "data=stdlib", f"cache_dir={tmp_path}"])
    assert spec.data.make().source.recall_slice.window == 96
    spec.data.node["source"]["recall_slice"] = None
    assert spec.data.make().source.recall_slice is None


def test_an_optimizer_is_made_later_with_its_parameters():
    parameter = torch.nn.Parameter(torch.zeros(2))
    assert isinstance(compose([]).optimizer.make()([parameter]), torch.optim.AdamW)


def test_what_looks_like_a_class_of_the_slot_is_refused_even_of_an_admitted_package(mark):
    with pytest.raises(TargetRefused, match=r"subclass of dsa\.patterns\.Pattern"):
        spec_with("foreign.Alike", "pattern", "allow_targets=[foreign]").pattern.make()
    spec = spec_with("foreign.Indexer", "indexer", "allow_targets=[foreign]")
    assert type(spec.indexer.make(d_model=8)).__module__ == "foreign"


def test_nothing_is_imported_to_be_refused(mark):
    with pytest.raises(TargetRefused, match=r"allow_targets=\[foreign\] .* --allow-target foreign"):
        assert spec_with("foreign.Alike", "selector").uses_indexer
    assert not mark.exists()
    with pytest.raises(TargetRefused, match=r"dsa\.selectors\.Nothing: no such class"):
        assert spec_with("dsa.selectors.Nothing", "selector").uses_indexer


def test_no_module_calls_hydras_own_instantiate():
    sources = sorted(Path(dsa.__file__).parent.rglob("*.py"))
    assert len(sources) > 100
    for file in sources:
        text = file.read_text()
        assert "hydra.utils.instantiate" not in text and "hydra.utils import instantiate" not in text, file
