"""Runs side by side: what the table says of each, and how runs are found."""

import sys
from io import StringIO
from pathlib import Path

import pytest
from conftest import QUIET, SMALL
from forked import launch
from omegaconf import OmegaConf
from rich.console import Console

from dsa import config
from dsa.analysis.inputs.differing import differing
from dsa.analysis.inputs.runs import OneRun
from dsa.analysis.output.runs import show_runs
from dsa.artifacts.results import RunResult
from dsa.doors.compare import main

ROOT = Path(__file__).resolve().parents[2]


def settings(*overrides):
    return config.resolved(config.compose(list(overrides)))


def result(run_id="a", status="finished", **values):
    return RunResult(run_id, status, "runs", {}, "tiny", "mqar", "continue", 64, 0, **values)


def leave(folder, *overrides, **values):
    """A run's folder as a run leaves it."""
    folder.mkdir(parents=True)
    result(folder.name, **values).write(folder)
    OmegaConf.save(OmegaConf.create(settings(*overrides)), folder / "config.yaml")
    return folder


def said(runs):
    out = StringIO()
    show_runs(runs, Console(file=out, width=160))
    return out.getvalue()


def table(text):
    """The table in a text: a dictionary a row."""
    lines = [[cell.strip() for cell in line.split(line[0])[1:-1]] for line in text.splitlines() if line[:1] in "┃│"]
    return [dict(zip(lines[0], line, strict=True)) for line in lines[1:]]


@pytest.mark.parametrize(
    ("runs", "found"),
    [
        ([["indexer=h1d8"], ["indexer=h2d32"]], {"indexer": ["h1d8", "h2d32"]}),
        ([["seed=0"], ["seed=1"]], {"seed": ["0", "1"]}),
        ([["seed=0"], ["indexer_seed=1"]], {"indexer_seed": ["0", "1"]}),
        ([["selector.k=8"], ["selector.k=16"]], {"selector.k": ["8", "16"]}),
        ([["pattern=causal"], ["pattern=strided"]], {"pattern": ["causal", "strided"]}),
        ([["judge=swap", "logger=csv"], ["output_dir=x", "callbacks=quiet"]], {"judge": ["swap", "val"]}),
        ([["seq_len=64"], ["seq_len=64"]], {}),
        (
            [["pattern=causal", "selector.k=8"], ["pattern=strided", "selector.k=16"]],
            {"pattern": ["causal", "strided"], "selector.k": ["8", "16"]},
        ),
    ],
)
def test_only_what_differs_labels_the_runs(runs, found):
    assert differing([settings(*one) for one in runs]) == found


def test_a_row_holds_what_its_run_measured():
    measured = result(
        val_loss=1.52, delta_loss=0.01, val_accuracy=0.5, mean_k=8.0, density=0.5, selection={"mean": {"mass": 0.9}},
        params={"indexer": 1088}, time={"step_ms": 40.0}, speed_is_real=True,
        flops={"dense_attention": 100.0, "indexer": 5.0, "select": 0.0, "sparse_attention": 50.0},
    )  # fmt: skip
    (row, other) = table(said([OneRun(settings("seed=0"), measured), OneRun(settings("seed=1"), measured)]))
    assert row == {
        "seed": "0", "val loss": "1.5200", "to dense": "+0.0100", "accuracy": "50.0 %", "mass": "0.900", "k": "8",
        "parameters": "1,088", "operations": "55.0 %", "step, ms": "40", "status": "finished",
    }  # fmt: skip
    assert other["seed"] == "1"


def test_what_no_run_has_is_no_column_and_a_step_that_is_no_speed_is_in_brackets():
    slow = result(val_loss=1.0, density=0.5, time={"step_ms": 40.0})
    text = said([OneRun(settings(), slow)])
    assert list(table(text)[0]) == ["run", "val loss", "step, ms", "status"]
    assert table(text)[0]["step, ms"] == "(40)"
    assert "no speed" in text


def test_losses_with_the_backbone_untouched_are_named_so():
    swapped = result(val_loss=1.0, swap_val_loss=1.0)
    assert "swap loss" in table(said([OneRun(settings(), swapped)]))[0]


def test_many_settings_leave_numbers_whole_and_room_for_a_reason():
    wide = {"pattern": {f"setting_{n}": n for n in range(12)}}
    other = {"pattern": {name: value + 1 for name, value in wide["pattern"].items()}}
    failed = result("b", "failed", error={"category": "nan", "reason": "why"})
    text = said([OneRun(wide, result(val_loss=1.2345)), OneRun(other, failed, "word " * 40)])
    assert "1.2345" in text and "setting_11=12: word word" in text and len(text.splitlines()) < 40


def test_names_of_settings_stay_whole_beside_many_others_and_failures():
    wide = [{"pattern": {"window": 64}, "selector": {"k": k}, "seed": k, "data": {"pairs": k}} for k in range(7)]
    failed = result("b", "failed", error={"category": "mistake", "reason": "why"})
    text = said([OneRun(one, failed, "a long sentence that says why " * 9) for one in wide])
    assert list(table(text)[0]) == ["seed", "selector.k", "data.pairs", "status"]


def test_a_failed_run_is_a_row_with_its_reason():
    failed = result("b", "failed", error={"category": "nan", "reason": "the loss [/] is not a number"})
    runs = [OneRun(settings("seed=0"), result(val_loss=1.0)), OneRun(settings("seed=1"), failed, "the loss [/] is nan")]
    text = said(runs)
    assert [row["status"] for row in table(text)] == ["finished", "failed"]
    assert text.splitlines()[-2 if "parameters" in text.splitlines()[-1] else -1] == "seed=1: the loss [/] is nan"


def test_runs_are_found_by_folder_by_result_by_pattern_and_once(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    leave(tmp_path / "runs" / "a", "indexer=h1d8", val_loss=1.0)
    leave(tmp_path / "runs" / "b", "indexer=h2d32", val_loss=2.0)
    leave(tmp_path / "other" / "c", "indexer=h4d64", val_loss=3.0)
    (tmp_path / "other" / "figures").mkdir()
    for given in (
        ["runs/*", "other/*"],
        ["runs/a", "runs/b/result.json", "other"],
        ["*/*"],
        ["runs", "runs/a", "other"],
    ):
        assert main(given) == 0
        rows = table(capsys.readouterr().out)
        assert sorted(row["indexer"] for row in rows) == ["h1d8", "h2d32", "h4d64"], given


def test_a_run_without_a_result_and_one_that_names_folders_elsewhere_are_rows_too(tmp_path, capsys):
    open_run, away = (leave(tmp_path / name, f"seed={seed}") for seed, name in enumerate(("open", "away")))
    (open_run / "result.json").unlink()
    result("away", artifacts={"base": "../../x"}).write(away)
    assert main([str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert {row["seed"]: row["status"] for row in table(text)} == dict.fromkeys("01", "open")
    assert "seed=0: no result yet" in text and "seed=1: result.json cannot be used" in text


def test_no_run_anywhere_is_one_sentence(tmp_path, capsys):
    assert main([str(tmp_path / "nothing"), str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_a_path_without_a_run_beside_good_ones_is_an_error_too(tmp_path, capsys):
    leave(tmp_path / "a", "seed=0")
    assert main([str(tmp_path), "/nowhere"]) == 2
    told = capsys.readouterr()
    assert told.err == "error: /nowhere: no run there.\n" and table(told.out)


@pytest.mark.slow
def test_a_multirun_ends_with_the_table_that_compare_prints_again(outputs):
    more = ["judge=swap", "steps=6", "ops=blocked", f"output_dir={outputs}"]
    line = [sys.executable, str(ROOT / "train.py"), "-m", "pattern=causal", "selector.k=8,0,9", *SMALL, *QUIET, *more]
    text, _ = (done := launch(line)).communicate(timeout=300)
    assert done.returncode == 1 and "Traceback" not in text, text
    assert text.count("configuration\n") == 1, "once for all runs"
    good, bad, other = table(text[text.index("3 runs") :])
    assert (good["selector.k"], good["status"], bad["selector.k"], bad["swap loss"]) == (
        "8", "finished", "0", "",
    )  # fmt: skip
    assert bad["status"] == "failed" and "selector.k=0: selector.k = 0" in text
    assert text.count("h2d16-causal-topk~-swap-mqar") < 9, "no line of a job comes twice"
    again = [sys.executable, "-m", "dsa.doors.command", "compare", f"{outputs}/runs/*"]
    told = table(launch(again).communicate(timeout=100)[0])
    assert sorted(told, key=lambda row: row["selector.k"]) == [bad, good, other]
