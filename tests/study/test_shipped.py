"""The studies of conf/study: each can be planned, is among all of them or says why not, and compares what it says."""

import re

import pytest
from conftest import options
from omegaconf import OmegaConf

from dsa.config import config_dir
from dsa.study.outlook import outlook
from study.studies import load, plans_of

OF_A_MODEL = {
    "pretrained": 8,
    "warm_up": 9,
    "head_weights_pretrained": 6,
    "negative_weights_pretrained": 6,
    "negative_weights_long": 6,
    "negative_weights_retrieval": 4,
    "clipping_by_rate": 4,
    "clipping_by_scale": 4,
    "pretrained_sizes": 4,
    "pretrained_savings": 8,
    "field_indexers_pretrained": 10,
    "block_granularity_pretrained": 5,
    "sharing_pretrained": 3,
    "sharing_leaders_pretrained": 2,
    "retrieval_pretrained": 4,
    "retrieval_learned_on_text": 3,
    "retrieval_sizes": 3,
}  # studies of a pretrained model, and their conditions
OF_QUESTIONS = {"retrieval_learned_on_text"}  # no other data has the settings that they compare
A_FEW = ("argparse", "ast", "bdb", "calendar", "cgi", "cmd", "codecs", "copy", "csv", "datetime", "dis", "doctest")


@pytest.mark.slow
@pytest.mark.parametrize("study", [s for s in options("study") if s not in {"research", "all", *OF_A_MODEL}])
def test_every_shipped_study_can_be_planned(study, outputs):
    seeds = "seed=0" if study != "quick" else "seed=0,1,2"
    (plan,) = plans_of(f"study={study}", seeds, "seq_len=512", f"output_dir={outputs}", exploratory=True)
    assert {run.role for run in plan.applicable} == {"control", "condition"}
    assert plan.study.baseline in plan.study.conditions


@pytest.mark.slow
@pytest.mark.parametrize(("study", "conditions"), OF_A_MODEL.items())
def test_a_study_of_a_pretrained_model_can_be_planned_on_any_model(study, conditions, outputs, tmp_path, monkeypatch):
    pytest.importorskip("transformers", reason="the extra dsa[pretrained] is not installed")
    from backbones.tiny_models import CONFIGS, saved

    config = CONFIGS["llama"]()
    config.num_hidden_layers = 30  # those that sharing_leaders_pretrained names
    folder = saved(tmp_path / "tiny", config, tokenizer=True)
    text = tmp_path / "text.txt"
    text.write_text("def return import self class for in if else\n" * 400)
    data = ["data=text_model", f"data.path={text}", "seq_len=64"]
    if study in OF_QUESTIONS:
        monkeypatch.setattr("dsa.data.stdlib._names", lambda root: [f"{name}.py" for name in A_FEW])
        data = ["data=retrieval_model", "data.distractors=0", "data.gap=1", "seq_len=256"]
    (plan,) = plans_of(
        f"study={study}", "model=pretrained", f"model.path={folder}", *data,
        f"cache_dir={tmp_path}", "seed=0", f"output_dir={outputs}", exploratory=True,
    )  # fmt: skip
    assert len(plan.study.conditions) == conditions and {run.spec.given for run in plan.applicable} == {True}
    assert {run.spec.recipe.dense_steps for run in plan.applicable} == {0}


def test_every_study_is_among_all_of_them_or_its_yaml_says_why_not():
    text = (config_dir() / "study" / "all.yaml").read_text()
    left_out = dict(re.findall(r"^#   (\w+): (.+)$", text, re.MULTILINE))
    union = list(OmegaConf.load(config_dir() / "study" / "all.yaml").union)
    assert sorted([*union, *left_out, "all"]) == options("study")


@pytest.mark.slow
def test_each_advanced_strategy_has_a_condition_and_none_has_a_second_difference(outputs):
    (plan,) = plans_of("study=advanced_strategies", "seed=0", "seq_len=128", f"output_dir={outputs}", exploratory=True)
    differ = {}
    for run in (run for run in plan.runs if run.role == "condition"):
        assert run.reason is None, run.label
        parts = run.spec.pattern, run.spec.indexer, run.spec.objective, run.spec.precision
        plain = "causal", "h2d32", "kl", "fp32"
        options = [part.option.rstrip("~") for part in parts]
        differ[run.label] = [own for own, other in zip(options, plain, strict=True) if own != other]
    assert sorted(map(len, differ.values())) == [0] + [1] * 10
    assert {name for names in differ.values() for name in names} == {
        "local_global", "multi_head", "learned", "adaptive", "multi_scale", "dynamic", "asked_kl", "gradient_kl"
    }  # fmt: skip
    assert differ["format by vector"] == differ["one of three indexers by row"] == ["dynamic"]


@pytest.mark.slow
def test_a_claim_about_time_asks_for_no_seeds(outputs):
    (plan,) = plans_of("study=speed", "seq_len=64", f"output_dir={outputs}")
    assert len(plan.study.seed) == 1 and not plan.study.exploratory
    assert "whatever the seeds" in outlook(plan.study)


def test_the_combinations_are_twenty():
    assert len(load(["study=optimization_combinations"]).plan.conditions) == 20
