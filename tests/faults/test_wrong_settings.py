"""Every setting refuses values of a wrong kind in one sentence that names it: none is taken silently, none crashes."""

import functools
import sys
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from conftest import QUIET, SMALL
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from study.studies import ROOT, TINY, launched, load

from dsa import cli_errors
from dsa.build import build_data, build_model
from dsa.cli_errors import sentence
from dsa.config import compose
from dsa.patterns import Pattern
from dsa.spec import spec_from, spec_of
from dsa.study.plain import changed, resolved
from dsa.study.workers.launch import run_sweep
from dsa.targets import maker
from dsa.training.settings import check_settings

SWITCH = ("no", "1", "null")
WHOLE = ("abc", "1.5", "-3", "true", "null")
WHOLE_OR_NULL = ("abc", "1.5", "-3", "true")
SHARE = ("abc", "nan", "-0.5", "true", "null")
TEXT = ("[a]", "true", "null")
TEXT_OR_NULL = ("[a]", "true")

WRONG: list[tuple[str, str, tuple[str, ...]]] = [  # options beside the setting, the setting, what it refuses
    *(("", key, (*WHOLE, "nan", "[1,2]", "{a: 1}")) for key in ("seq_len", "seed")),
    ("", "indexer_seed", WHOLE),
    ("", "index_every", (*WHOLE, "0", "[]", "[1,2]", "[0,2,1]", "[0,0]", "[0,a]", "[0,true]", "[0,9]", "{a: 1}")),
    ("", "steps", ("abc", "1.5", "nan", "-3", "0", "true", "[1,2]")),
    ("", "judge", ("no", "null", "[val]")),
    ("", "dtype", ("fp8", "null", "16", "[fp32]")),
    ("", "ops", ("fast", "null", "true", "[cpu]")),
    ("", "output_dir", TEXT),
    ("", "name", TEXT),
    ("", "cache_dir", TEXT_OR_NULL),
    ("", "stale", ("no", "null", "true")),
    *(("", key, (*SWITCH, "[true]", "'true'")) for key in ("resume", "rerun", "dense_control")),
    ("", "allow_targets", ("foreign", "null", "3", "[[a]]", "[1,null]")),
    *(("", f"model.{key}", WHOLE) for key in ("d_model", "layers", "heads", "ff", "conv")),
    ("", "model.rope_base", SHARE),
    ("", "model.kv", ("all", *TEXT)),
    *(("", f"model.{key}", WHOLE) for key in ("kv_stride", "kv_window")),
    ("", "model.kv_rotary_dim", WHOLE_OR_NULL),
    *(("", f"model.{key}", SWITCH) for key in ("kv_overlap", "kv_sink")),
    *(("", f"memory.{key}", SWITCH) for key in ("checkpoint", "offload")),
    *(("", f"indexer.{key}", WHOLE) for key in ("heads", "dim")),
    ("", "indexer.rotary_dim", WHOLE_OR_NULL),
    ("indexer=ultra_light", "indexer.dim", WHOLE),
    ("pattern=causal", "pattern.budget", WHOLE),
    *(("pattern=local_global", f"pattern.{key}", WHOLE) for key in ("window", "budget")),
    *(("pattern=local_global_sinks", f"pattern.{key}", WHOLE) for key in ("sinks", "window", "budget")),
    *(("pattern=sliding_window", f"pattern.{key}", WHOLE) for key in ("window", "stride")),
    ("pattern=sliding_window", "pattern.keep", SHARE),
    ("pattern=strided", "pattern.keep", SHARE),
    *(("pattern=hierarchical", f"pattern.{key}", WHOLE) for key in ("local", "medium", "far")),
    ("pattern=hierarchical", "pattern.medium_keep", SHARE),
    ("pattern=multi_head", "pattern.patterns.near.budget", WHOLE),
    ("pattern=multi_head", "pattern.patterns", ("3", "null", "[near]", "{near:3}")),
    ("pattern=multi_head", "pattern.deal", ("near", "null", "[near,far]", "near wide", "3")),
    ("pattern=learned", "pattern.groups", WHOLE),
    *(("pattern=learned", f"pattern.{key}", ("abc", "nan", "-3", "0", "true", "[1]")) for key in ("hot", "cold")),
    *(("pattern=adaptive", f"pattern.{key}", WHOLE) for key in ("groups", "prefix")),
    ("pattern=learned", "pattern.default", ("null", "3", "wide")),
    ("selector=topk", "selector.k", WHOLE_OR_NULL),
    ("selector=random", "selector.seed", WHOLE),
    ("selector=ratio_10", "selector.ratio", SHARE),
    ("selector=ratio_10", "selector.min_k", WHOLE),
    *(("selector=progressive_linear", f"selector.{key}", WHOLE) for key in ("start_k", "end_k")),
    ("selector=adaptive_dynamic", "selector.p", SHARE),
    ("selector=adaptive_entropy", "selector.max_k", WHOLE),
    ("selector=adaptive_position", "selector.target_mean", ("abc", "nan", "-3", "true", "[1]")),
    ("precision=fp8", "precision.hadamard", (*SWITCH, "[true]", "'true'", "0.5")),
    ("precision=fp8", "precision.group", WHOLE),
    ("precision=int8", "precision.bits", WHOLE),
    ("precision=int8", "precision.scale", (*WHOLE, "0", "columns", "[row]")),
    *(("precision=bf16", f"precision.{key}", ("fp32", "null", "16", "[float16]"))
      for key in ("queries", "keys", "weights", "accumulate")),
    *(("precision=mixed", f"precision.{key}", ("int8",)) for key in ("weights", "accumulate")),
    ("precision=dynamic", "precision.error", SHARE),
    ("", "precision.in_training", SWITCH),
    ("", "objective.weight", SHARE),
    ("", "objective.train_when_sparse", SWITCH),
    ("", "optimizer.betas", ("0.9", "null", "[0.9]", "[a,b]", "[0.9,nan]", "[0.9,true]")),
    ("", "optimizer.weight_decay", ("abc", "nan", "null", "true", "[0.1]")),
    ("", "optimizer.fused", ("no", "1", "[true]")),
    ("", "optimizer._partial_", ("no", "null")),
    *(("logger=wandb", f"logger.{key}", TEXT) for key in ("project", "mode")),
    ("logger=wandb", "logger.entity", TEXT_OR_NULL),
    ("", "logger.judgement_runs", WHOLE),
    *(("", f"data.{key}", WHOLE) for key in ("batch_size", "eval_batches", "seed")),
    ("", "data.eval_batch_size", WHOLE_OR_NULL),
    *(("", f"data.{key}", WHOLE_OR_NULL) for key in ("pairs", "gap")),
    *(("", f"data.source.{key}", WHOLE) for key in ("keys", "values", "noise")),
    ("data=induction", "data.source.vocab", WHOLE),
    *(("data=retrieval seq_len=512", f"data.{key}", WHOLE) for key in ("distractors", "values", "hops", "digits")),
    ("data=retrieval seq_len=512", "data.form", ("triple", "3", *TEXT)),
    ("data=retrieval seq_len=512", "data.gap", WHOLE_OR_NULL),
    ("data=text", "data.path", TEXT),
    *((beside, "data.encoding", ("utf-9", "base64", "''", *TEXT)) for beside in ("data=text", "data=text_bpe")),
    ("data=text_bpe", "data.source.tokenizer.vocab_size", WHOLE),
    ("data=text", "data.source.recall_slice.ngram", WHOLE),
    *(("data=hub data.name=x", f"data.{key}", SWITCH) for key in ("streaming", "lines")),
    *(("data=hub data.name=x", f"data.{key}", WHOLE_OR_NULL) for key in ("max_documents", "max_bytes")),
    *(("data=hub data.name=x", f"data.{key}", TEXT) for key in ("split", "column")),
    *(("data=hub data.name=x", f"data.{key}", TEXT_OR_NULL) for key in ("revision", "validation_split", "config")),
    *(("", f"recipe.{stage}.steps", WHOLE) for stage in ("dense", "warmup", "sparse")),
    *(("", f"recipe.{key}", SHARE) for key in ("dense.lr", "warmup.indexer_lr", "sparse.lr", "sparse.indexer_lr")),
    *(("", f"recipe.{key}", SHARE) for key in ("lr_warmup", "lr_final")),
    ("", "recipe.clip", ("abc", "nan", "-0.5", "true", "null", "[1]", "0")),
    ("", "recipe.dense", ("5", "null", "[1]")),
    ("", "trainer.devices", ("abc", "0", "-3", "1.5", "null", "true", "[]", "[a]")),
    *(("", f"trainer.{key}", ("fast", *TEXT)) for key in ("accelerator", "strategy")),
    *(("", f"trainer.{key}", WHOLE) for key in ("accumulate", "num_nodes")),
    ("", "trainer.shard", SWITCH),
    ("", "callbacks.progress_bar", SWITCH),
    *(("", f"callbacks.{key}", WHOLE) for key in ("val_every", "checkpoint_every", "maps_every")),
    *(("", group, ("null", "3", "[a]")) for group in ("precision", "selector", "trainer", "callbacks", "recipe")),
    ("", "memory", ("null", "3", "[a]")),
]  # fmt: skip
CASES = [(beside, key, value) for beside, key, values in WRONG for value in values]


@functools.cache
def composed(beside: str) -> dict[str, Any]:
    """The small configuration with other options, interpolations as they are written."""
    own = [one.split("=")[0] for one in beside.split() if one.count(".") == 0]
    kept = [one for one in (*SMALL, *QUIET) if one.split("=")[0].split(".")[0] not in own]
    cfg = compose([*kept, "pattern=causal", *beside.split()])
    return OmegaConf.to_container(cfg, resolve=False)  # type: ignore[return-value]


def prepare(content: dict[str, Any]) -> None:
    """All that a run meets before its first step."""
    spec = spec_from(resolved(content))
    data = build_data(spec)
    check_settings(spec)
    with torch.device("meta"):
        build_model(spec, data.vocab_size)


def test_there_are_many_wrong_settings():
    assert len(CASES) > 200
    assert len({key for _, key, _ in CASES}) > 80


@pytest.mark.slow
@pytest.mark.parametrize(("beside", "key", "value"), CASES)
def test_a_wrong_value_is_refused_by_name(beside, key, value, outputs, tmp_path):
    content = composed(beside)
    if "data=text" in beside:
        (tmp_path / "book.txt").write_text("A page of text, and another one. " * 400)
        content = changed(content, ("data", "path"), str(tmp_path / "book.txt")) | {"cache_dir": str(tmp_path)}
    wrong = OverridesParser.create().parse_override(f"{key}={value}").value()
    with pytest.raises(ValueError) as refused:
        prepare(changed(content, tuple(key.split(".")), wrong))
    told = str(refused.value)
    assert key.rpartition(".")[2] in told and key.split(".")[0] in told, told
    assert told.count("\n") == 0 and len(told) < 600
    assert not outputs.exists()


@pytest.mark.parametrize(
    "beside", sorted({beside for beside, _, _ in WRONG if "hub" not in beside and "text" not in beside})
)
def test_the_same_settings_are_taken_where_their_values_are_right(beside):
    prepare(composed(beside))


@pytest.mark.parametrize("key", ["recipe.clip", "seed", "data.batch_size", "model.heads", "callbacks.val_every"])
def test_a_setting_that_was_taken_away_is_missed_by_name(key):
    cfg = compose([*SMALL, *QUIET, f"~{key}"])
    with pytest.raises(ValueError, match=rf"\b{key.rpartition('.')[2]}\b"):
        prepare(OmegaConf.to_container(cfg, resolve=False))


@pytest.mark.parametrize("value", [None, 3, ["a"]])
def test_a_group_that_others_refer_to_is_named_before_they_are_resolved(value):
    cfg = compose([*SMALL, *QUIET])
    cfg.model = value
    with pytest.raises(ValueError, match=r"^model = .*: give the name of an option of conf/model\.$"):
        spec_of(cfg)


@pytest.mark.parametrize("given", ["model=null", "selector=3", "hydra/launcher=true", "experiment=null", "+study=1.5"])
def test_a_group_takes_names_alone(given, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["train.py", given])
    monkeypatch.setenv(cli_errors.FULL, "0")
    with pytest.raises(SystemExit) as end:
        cli_errors.run(lambda: pytest.fail("it began"))
    assert end.value.code == 2
    group, value = given.lstrip("+").split("=")
    told = f"error: {group} = {value}: give the name of an option of conf/{group}, or leave it out.\n"
    assert capsys.readouterr().err == told


class Own(Pattern):
    """A class of a user's, annotated like any."""

    def __init__(self, sizes: list[int], mode: Literal["near", "far"], scale: float | None, path: Path, free=1) -> None:
        self.given = sizes, mode, scale, path, free

    def zones(self):
        return ()


OWN: dict[str, Any] = {"sizes": [1, 2], "mode": "near", "scale": None, "path": "x", "free": {"any": "thing"}}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"sizes": [1, "two"]}, "pattern.sizes = [1, 'two']: give a list [a whole number, ...]."),
        ({"sizes": 3}, "pattern.sizes = 3: give a list [a whole number, ...]."),
        ({"mode": "middle"}, "pattern.mode = middle: give near or far."),
        ({"scale": "big"}, "pattern.scale = big: give a number or null."),
        ({"scale": float("nan")}, "pattern.scale = nan: give a number or null."),
        ({"path": None}, "pattern.path = null: give something else."),
        ({"more": 1}, "pattern: Own cannot be made, got an unexpected keyword argument 'more'."),
    ],
)
def test_a_class_of_ones_own_is_checked_by_its_annotations(settings, words):
    node = {"_target_": f"{__name__}.Own"} | OWN
    assert maker(node, "pattern", [__name__])().given == tuple(OWN.values())
    with pytest.raises(ValueError) as refused:
        maker(node | settings, "pattern", [__name__])()
    assert str(refused.value) == words


SWEPT = [  # beside a study of one condition
    *((key, value) for key in ("dry_run", "retry_failed", "wait", "timing") for value in ("no", "1", "null")),
    *(("exploratory", value) for value in ("no", "1", "[true]")),
    *(("timeout_minutes", value) for value in ("abc", "nan", "inf", "-1", "true", "[1]")),
    *(("finalists", value) for value in ("abc", "1.5", "-1", "true")),
    *(("seed", value) for value in ("abc", "1.5", "nan", "-1", "true", "null", "[]")),
    *(("indexer_seed", value) for value in ("abc", "1.5", "-1", "true", "[]")),
    *(("index_every", value) for value in ("abc", "1.5", "0", "99", "1,99", "true", "[]", "1,[1]", "1,[0,9]")),
    *(("seq_len", value) for value in ("abc", "64.0", "0", "1", "null")),
    *(("on_error", value) for value in ("no", "null", "[stop]")),
    *(("judge", value) for value in ("no", "1", "[val]")),
    *(("name", value) for value in ("../x", "[a]", "true")),
    *(("recipe.dense.lr", value) for value in ("abc", "nan", "0.1,abc")),
    *(("memory.checkpoint", value) for value in ("no", "true,no")),
    *(("resume", value) for value in ("no", "1")),
    *(("rerun", value) for value in ("no", "true")),
    ("planned", "x.json"), ("allow_targets", "foreign"), ("data.gap", "abc"), ("data.batch_size", "4,x"),
    ("selector.k", "8,null,no"), ("precision.in_training", "no"), ("indexer.dim", "8,nan"), ("pattern.budget", "wide"),
    ("trainer.accumulate", "1.5"), ("trainer.devices", "no"), ("callbacks.progress_bar", "no"),
    ("output_dir", "null"), ("logger.judgement_runs", "no"), ("objective.weight", "true"),
]  # fmt: skip


@pytest.mark.slow  # Hydra composes for each
@pytest.mark.parametrize(("key", "value"), SWEPT)
def test_a_study_with_a_wrong_value_is_refused_by_name(key, value, outputs, capsys):
    kept = [one for one in ("name=x", *TINY, "seed=0") if one.split("=")[0] != key]
    given = [*kept, *([] if key == "output_dir" else [f"output_dir={outputs}"]), f"{key}={value}"]
    given += [] if key == "exploratory" else ["exploratory=true"]
    try:
        with pytest.raises(SystemExit) as end:
            run_sweep(load([one for one in given if "," not in one]), given, load, object())
        assert end.value.code == 2
        told = capsys.readouterr().err
    except (HydraException, OmegaConfBaseException) as error:  # where the program itself begins
        told = f"error: {sentence(error)}\n"
    assert told.startswith("error: ") and told.count("\n") == 1
    assert key.rpartition(".")[2] in told, told
    assert not outputs.exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "arguments", "words"),
    [
        ("train.py", ["seed=abc"], "error: seed = abc: give a whole number from 0."),
        ("train.py", ["precision=fp8", "precision.hadamard=no"], "error: precision.hadamard = no: give true or false."),
        ("train.py", ["seq_len=${nope}"], "error: Interpolation key 'nope' not found"),
        ("sweep.py", ["name=x", "recipe.dense.lr=abc"], "error: recipe.dense.lr = abc: a learning rate must be"),
        ("sweep.py", ["name=x", "planned=x.json"], "error: planned = x.json: a sweep hands it to its own jobs"),
    ],
)
def test_the_programs_say_it_in_one_line(program, arguments, words, outputs):
    line = [sys.executable, str(ROOT / program), *SMALL, *QUIET, f"output_dir={outputs}", *arguments]
    process = launched(line)
    text, _ = process.communicate(timeout=120)
    assert process.returncode in (1, 2)
    assert "Traceback" not in text
    assert text.splitlines()[-1].startswith(words), text
