"""A value given beside the option that it belongs to is what is trained, wherever both are written."""

import functools
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import options
from omegaconf import OmegaConf

from dsa import compose, config
from dsa.build import build_data
from dsa.study.messages import show_plan
from dsa.study.plan import StudyPlan
from dsa.study.sweep import at
from study import studies
from study.studies import load, plans_of

BASE = ["name=x", "seq_len=512", "exploratory=true", "index_every=2"]  # sharing, without which nothing is balanced

# For every key of every group a value that its options do not have; a new key is missed until it stands here.
VALUES: dict[str, dict[str, Any]] = {
    "indexer": {"d_model": 24, "heads": 5, "dim": 12, "rotary_dim": 4, "weight": "absolute", "init": 0.1,
                "unit": 16, "pool": "mean", "local": 2, "block": 4, "blocks": 5, "near_heads": 2, "near_dim": 12,
                "members": ["h1d4", "h2d12"], "compute": 0.6, "prefix": 30,
                "far_heads": 3, "far_dim": 12, "reach": 48, "far": 50},
    "pattern": {"budget": 40, "window": 20, "stride": 5, "keep": 0.2, "local": 5, "medium": 12, "medium_keep": 0.2,
                "far": 6, "sinks": 6, "patterns.near.window": 20, "patterns.near.budget": 40,
                "patterns.far.stride": 5, "patterns.far.keep": 0.2, "deal": "far near",
                "patterns.sinks.sinks": 2, "patterns.sinks.window": 20, "patterns.sinks.budget": 40,
                "patterns.all.budget": 40, "default": "all", "groups": 4, "prefix": 30, "hot": 2.0, "cold": 0.5},
    "selector": {"k": 40, "seed": 7, "seq_len": 900, "min_k": 36, "max_k": 48, "p": 0.8, "target_mean": 41,
                 "ratio": 0.35, "start_k": 36, "end_k": 40, "sinks": 6},
    "precision": {"queries": "int4", "keys": "float16", "weights": "float16", "accumulate": "float16", "bits": 6,
                  "scale": 16, "group": 64, "error": 0.3},
    "data": {"seq_len": 96, "seed": 5, "batch_size": 6, "eval_batch_size": 6, "eval_batches": 3, "pairs": 4, "gap": 9,
             "decoys": 3, "strays": 2, "source.decoys": 5, "source.strays": 6,
             "form": "single", "distractors": 2, "values": 3, "hops": 1, "digits": 6, "learn": "text",
             "source.form": "variable", "source.distractors": 1, "source.hops": 3, "source.digits": 5,
             "source.learn": "text",
             "path": "book.txt", "column": "body", "name": "owner/text", "config": "raw", "split": "half",
             "validation_split": "test", "revision": "abc", "max_documents": 3,
             "max_bytes": 999, "source.pairs": 5, "source.gap": 10, "source.keys": 32, "source.values": 32,
             "source.noise": 32, "source.vocab": 32, "source.cache_dir": "here", "source.recall_slice.ngram": 3,
             "source.recall_slice.window": 50, "source.tokenizer.vocab_size": 300, "source.corpus.path": "other.txt",
             "encoding": "latin-1", "source.corpus.encoding": "utf-16",
             "source.corpus.column": "words", "source.corpus.name": "owner/more", "source.corpus.config": "fine",
             "source.corpus.split": "third", "source.corpus.validation_split": "rest", "source.corpus.revision": "def",
             "source.corpus.max_documents": 4,
             "source.corpus.max_bytes": 998},
    "model": {"d_model": 96, "layers": 3, "heads": 3, "ff": 80, "conv": 5, "rope_base": 5000.0,
              "kv_stride": 8, "kv_window": 64, "kv_rotary_dim": 4},
    "recipe": {"dense.steps": 7, "dense.until": 0.9, "dense.lr": 0.002, "warmup.steps": 6, "warmup.indexer_lr": 0.004,
               "sparse.steps": 5, "sparse.lr": 0.005, "sparse.indexer_lr": 0.006, "lr_warmup": 0.2,
               "lr_final": 0.3, "clip": 2.0},
    "objective": {"weight": 2.0, "balance": "gradnorm"},
    "optimizer": {"betas": [0.8, 0.95], "weight_decay": 0.1},
    "memory": {"checkpoint": True, "offload": True, "chunk": 64},
    "trainer": {"accelerator": "cpu", "devices": 3, "strategy": "ddp", "num_nodes": 2, "shard": True,
                "accumulate": 2},
    "logger": {"project": "mine", "entity": "us", "mode": "offline", "judgement_runs": 7},
    "callbacks": {"val_every": 7, "checkpoint_every": 9, "maps_every": 11},
}  # fmt: skip
GROUPS = sorted(VALUES)
NO_COMPARISON = sorted({*GROUPS} - {"indexer", "pattern", "selector", "precision", "recipe"})  # dense runs have it too


def keys(node: dict[str, Any], path: str = "") -> Iterator[str]:
    """Every setting below a group; which class makes it is none, the model of these plans has no latent, and their
    indexers choose no entries."""
    for key, value in node.items():
        if isinstance(value, dict):
            yield from keys(value, f"{path}{key}.")
        elif key not in (
            "_target_",
            "_partial_",
            "fixed",
            "latent",
            "kv",
        ):  # fixed: what it names takes the option's place
            yield f"{path}{key}"


@functools.cache
def settings(group: str, option: str) -> dict[str, Any]:
    """The settings that an option of a group has."""
    node = config.compose([f"{group}={option}"])[group]
    return {key: OmegaConf.select(node, key, default=None) for key in keys(OmegaConf.to_container(node))}


NEED_FILES = {"pretrained", "smollm2", "gemma3_270m", "stdlib_model", "text_model", "retrieval_model", "by_length"}
"""Options of models that somebody trained, or of a study that somebody ran: a plan reads their files."""


def choices(group: str) -> list[str]:
    """Options of a group that have all its settings between them, as few as a glance finds."""
    seen: set[str] = set()
    out: list[str] = []
    for option in sorted({*options(group)} - NEED_FILES, key=lambda option: (-len(settings(group, option)), option)):
        if settings(group, option).keys() - seen:
            seen |= settings(group, option).keys()
            out.append(option)
    return out


def given(group: str, option: str) -> dict[str, Any]:
    """The option and another value of each of its settings: a switch the other way, else as in the table."""
    other = {
        key: not own if isinstance(own, bool) else VALUES[group][key] for key, own in settings(group, option).items()
    }
    assert not [key for key, own in settings(group, option).items() if own == other[key]]
    return {group: option} | {f"{group}.{key}": value for key, value in other.items()}


def on_the_command_line(layer: dict[str, Any]) -> StudyPlan:
    (plan,) = plans_of(*BASE, *(f"{key}={typed(value)}" for key, value in layer.items()))
    return plan


def typed(value: Any) -> str:
    return "[" + ",".join(map(str, value)) + "]" if isinstance(value, list) else str(value)


def in_common(layer: dict[str, Any]) -> StudyPlan:
    return planned({"common": dict(reversed(layer.items())), "conditions": {"ops": "auto"}})


def in_a_condition(layer: dict[str, Any]) -> StudyPlan:
    return planned({"conditions": {key: [value] for key, value in reversed(layer.items())}})


def planned(yaml: dict[str, Any], *arguments: str) -> StudyPlan:
    """The plan of a study's yaml with a command line."""
    return studies.planned(yaml, *BASE[1:], *arguments)


@pytest.fixture(autouse=True)
def data_is_at_hand(outputs, monkeypatch):
    """Data sets from the network, of files that are not there, and of other lengths are not asked for."""
    monkeypatch.setattr("dsa.study.plan.build_data", lambda cfg: rows())


@functools.cache
def rows():
    return build_data(compose(["data=mqar", "seq_len=512"]))


WAYS = (on_the_command_line, in_common, in_a_condition)
EVERYWHERE = ("indexer", "pattern", "selector", "data")  # the others in one of the ways each, in turns
WRITTEN = [(g, way) for n, g in enumerate(GROUPS) for i, way in enumerate(WAYS) if g in EVERYWHERE or n % 3 == i]


@pytest.mark.slow
@pytest.mark.parametrize(("group", "write"), WRITTEN)
def test_every_value_beside_its_option_is_what_is_trained(group, write):
    for option in choices(group):
        layer = given(group, option)
        plan = write(layer)
        ran = [run for run in plan.runs if run.role == "condition" or group in NO_COMPARISON]
        assert ran and plan.dropped == {}
        for run in ran:
            content = run.spec.content
            assert content["choices"][group] == option
            found = {key: at(content, key) for key in layer if key != group}
            assert found == {key: value for key, value in layer.items() if key != group}, (run.label, option)


def test_every_group_is_in_the_table():
    chosen = {key for key in load([]).hydra.runtime.choices if "/" not in key}
    assert chosen - {"study", "experiment"} == set(VALUES)


@pytest.mark.slow
@pytest.mark.parametrize("typed", [["selector=topk", "selector.k=8"], ["selector.k=8", "selector=topk"]])
def test_an_option_typed_beside_its_value_changes_nothing(typed):
    (plan,) = plans_of(*BASE, "indexer=h1d8,h1d16", "pattern=causal", *typed)
    (same,) = plans_of(*BASE, "indexer=h1d8,h1d16", "pattern=causal", "selector.k=8")
    assert [run.hash for run in plan.runs] == [run.hash for run in same.runs]
    ran = [run for run in plan.runs if run.role == "condition" or run.compared_as in ("oracle", "random", "window")]
    assert [run.spec.selector.node["k"] for run in ran] == [8] * 5


def test_a_value_typed_once_stands_for_every_option_of_a_list():
    (plan,) = plans_of(*BASE, "selector=topk,oracle", "selector.k=40")
    assert {run.label: run.spec.selector.node["k"] for run in plan.runs if run.role == "condition"} == {
        "topk": 40,
        "oracle": 40,
    }


def test_a_value_in_common_without_an_option_stands_under_every_option_of_the_conditions():
    plan = planned({"common": {"selector.k": 40}, "conditions": {"selector": ["topk", "oracle"]}})
    assert {run.spec.selector.node["k"] for run in plan.runs if run.role == "condition"} == {40}


@pytest.mark.parametrize(
    ("pattern", "kept"),
    [(["pattern=causal", "pattern.budget=16"], ("causal", 16)), (["pattern=causal,strided_2"], ("causal", 64)),
     (["pattern=local_global,sliding_window", "pattern.window=40"], ("causal", 64)),
     (["pattern=causal,local_global", "pattern.budget=48"], ("causal", 48))],
)  # fmt: skip
def test_controls_have_the_pattern_that_the_conditions_share(pattern, kept):
    (plan,) = plans_of(*BASE, *pattern)
    controls = [run.spec for run in plan.runs if run.compared_as in ("oracle", "random", "window")]
    assert {(spec.options["pattern"].rstrip("~"), spec.pattern.node["budget"]) for spec in controls} == {kept}


@pytest.mark.parametrize(
    ("yaml", "arguments", "words"),
    [
        ({"common": {"selector.k": 8}, "conditions": {"selector": ["topk", "ratio_25"]}}, [],
         "selector.k = 8: no such setting of selector=ratio_25"),
        ({"common": {"selector": "topk"}, "conditions": {"selector": ["topk", "ratio_25"]}}, ["selector.k=8"],
         "selector.k = 8: no such setting of selector=ratio_25"),
        ({"conditions": [{"selector": "topk"}]}, ["selector=oracle"], "selector = oracle: condition topk of study x"),
        ({"conditions": [{"selector": "topk"}]}, ["selector=oracle,random"], "selector = oracle, random: condition"),
        ({"conditions": [{"indexer": "h1d8", "selector.k": 4}, {"indexer": "h1d8", "selector.k": 8}]}, [],
         "two of them are labelled h1d8"),
        ({"conditions": {"indexer": "h1d8"}}, ["model.layers=[]"], "model.layers = []: lists nothing"),
    ],
)  # fmt: skip
def test_a_value_that_cannot_stand_is_refused(yaml, arguments, words):
    with pytest.raises(ValueError) as error:
        planned(yaml, *arguments)
    assert words in str(error.value)


WITH_K = {"selector": "topk", "selector.k": 40}


@pytest.mark.parametrize(
    ("conditions", "arguments", "where"),
    [
        ({"selector": ["topk", "ratio_25"]}, [], " in ratio_25"),
        ({"selector": ["oracle", "ratio_25"]}, [], ""),
        ({"indexer": ["h1d8", "h2d8"]}, ["selector=oracle"], ""),
        ({"indexer": ["h1d8", "h2d8"]}, ["selector=oracle,topk"], " in h1d8-oracle, h2d8-oracle"),
    ],
)
def test_a_value_of_the_yaml_that_goes_with_its_option_is_told(conditions, arguments, where, capsys):
    show_plan([planned({"common": WITH_K, "conditions": conditions}, *arguments)])
    told = [line for line in capsys.readouterr().out.splitlines() if "left out" in line]
    assert told == [f"  left out selector.k=40{where}: the yaml gives it for selector=topk, not chosen here"]


def test_a_value_that_a_condition_gives_anew_is_not_said_to_be_left_out(capsys):
    conditions = {"selector": "oracle", "selector.k": [40, 48]}
    show_plan([planned({"common": WITH_K, "conditions": conditions})])
    assert "left out" not in capsys.readouterr().out
