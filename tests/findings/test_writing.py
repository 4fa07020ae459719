"""The findings are written from run folders, and again from what lies beside them; what else is there stays."""

import json
import re
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from analysis.made_up import meta_of, result_of
from planted import PARAMETERS, indexers, sized, study, timed

from paper.source import load_all, save
from write import main

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """Few bootstrap draws."""
    monkeypatch.setattr("dsa.analysis.statistics.intervals.RESAMPLES", 199)


def test_a_page_written_by_hand_is_led_to_and_left_as_it_is(outputs_of_a_study, tmp_path):
    page = tmp_path / "why" / "README.md"
    page.parent.mkdir()
    page.write_text("# Why is it so?\n\n**Nobody\nknows**, yet.\n\nMore of it.\n")
    assert main([str(outputs_of_a_study), "--to", str(tmp_path)]) == 0
    assert "- [why](why/README.md). Why is it so? **Nobody knows**, yet.\n" in (tmp_path / "README.md").read_text()
    assert page.read_text().endswith("More of it.\n")
    page.write_text("No title.\n")
    assert main([str(outputs_of_a_study), "--to", str(tmp_path)]) == 1


def test_writing_one_study_leaves_the_others_on_the_pages(outputs_of_a_study, tmp_path, monkeypatch):
    monkeypatch.setattr("write.write_study", save)  # its results alone, without figures
    first = tmp_path / "first"
    assert main([str(outputs_of_a_study), "--to", str(first)]) == 0
    before = (first / "optimal_indexer_config" / "runs.parquet").stat().st_mtime_ns
    plan = json.loads((outputs_of_a_study / "study.json").read_text())
    (outputs_of_a_study / "study.json").write_text(json.dumps(plan | {"name": "another"}))
    assert main([str(outputs_of_a_study), "--to", str(first)]) == 0
    page = (first / "README.md").read_text()
    assert "(optimal_indexer_config/README.md)" in page and "(another/README.md)" in page
    assert (first / "optimal_indexer_config" / "runs.parquet").stat().st_mtime_ns == before


def test_lengths_of_a_study_that_ran_apart_are_one_study(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("write.write_study", save)  # its results alone, without figures
    losses = {"h4d64": 1.2, "h2d32": 1.3, "h1d16": 1.2}
    for name, changes in {"short": {"lengths": (64,)}, "long": {"lengths": (128,)}}.items():
        save(study(indexers(losses, **changes)), tmp_path / name)
    assert main([str(tmp_path / "short"), "--to", str(tmp_path / "out")]) == 0
    assert main([str(tmp_path / "long"), "--to", str(tmp_path / "out")]) == 0
    (both,) = load_all([tmp_path / "out"])
    assert both.analysis.prepared.lengths == [64, 128]
    assert len(both.analysis.prepared.runs) == 2 * len(indexers(losses).runs)
    again = indexers(losses | {"h2d32": 1.5}, lengths=(128,))
    save(study(again), tmp_path / "long")
    assert main([str(tmp_path / "long"), "--to", str(tmp_path / "out")]) == 0
    (both,) = load_all([tmp_path / "out"])
    assert len(both.analysis.prepared.meta.runs) == 2 * len(again.meta.runs)
    assert both.analysis.prepared.rows("h2d32", 128)["val_loss"].mean() == pytest.approx(1.5, abs=0.1)
    save(study(indexers(losses, margin={"val_loss": 0.5})), tmp_path / "long")
    assert main([str(tmp_path / "long"), "--to", str(tmp_path / "out")]) == 1
    assert "its parts differ" in capsys.readouterr().err


def test_seeds_of_a_study_that_ran_apart_are_one_study(tmp_path):
    losses = {"h4d64": 1.2, "h2d32": 1.3}
    first = indexers(losses)
    later = indexers(losses | {"h2d32": 1.5})
    seeds = {seed: seed + 15 for seed in range(20)}  # 15 to 34: five are there already
    runs = [run | {"seed": seeds[run["seed"]]} for run in later.meta.runs]
    later = replace(later, meta=replace(later.meta, runs=runs), runs=later.runs.replace({"seed": seeds}))
    for name, part in {"a": first, "b": later}.items():
        save(study(part), tmp_path / name)
    (both,) = load_all([tmp_path])
    loss = both.analysis.prepared.rows("h2d32", 64)["val_loss"]
    assert sorted(loss.index) == list(range(35)) and len(both.analysis.prepared.meta.runs) == 35 * len(runs) // 20
    assert loss[loss.index < 15].mean() == pytest.approx(1.3, abs=0.1)
    assert loss[loss.index >= 15].mean() == pytest.approx(1.5, abs=0.1)  # the later part's where both have a seed


@pytest.fixture
def outputs_of_a_study(tmp_path: Path) -> Path:
    """A study's run folders, with a run missing."""
    folder = tmp_path / "outputs" / "optimal_indexer_config"
    meta = meta_of({label: {"indexer": label} for label in PARAMETERS}, seeds=20, name="optimal_indexer_config")
    for run in meta.runs:
        run["study"] = meta.name
        if (run["label"], run["seed"]) == ("h1d16", 9):
            continue
        true = {"h4d64": 1.2, "h2d32": 1.2, "h1d16": 1.3, "dense": 1.0, "random": 2.0, "window": 1.5, "oracle": 1.0}
        draw = np.random.default_rng([run["seed"], len(run["label"])])
        loss = true[run["label"]] + 0.01 * run["seed"] + draw.normal(0, 0.001)
        (folder / run["run_id"]).mkdir(parents=True)
        layers = {"selection": {"layers": [{"mass": 0.5, "oracle_mass": 0.6, "recall": 0.7}]}}
        result = sized(run, result_of(run, loss, 1.0 + 0.01 * run["seed"], 1.5 + 0.01 * run["seed"])) | layers
        (folder / run["run_id"] / "result.json").write_text(json.dumps(result))
    (folder / "study.json").write_text(json.dumps(asdict(meta)))
    turns = {"h4d64": [100.0, 101.0, 99.0], "h2d32": [80.0, 81.0, 79.5]}
    (folder / "timing.json").write_text(json.dumps({"64": timed(turns)}))
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_command_writes_pages_that_the_compact_results_give_again(outputs_of_a_study, tmp_path, capsys):
    first, second = tmp_path / "first", tmp_path / "second"
    assert main([str(outputs_of_a_study), "--to", str(first)]) == 0
    assert main([str(first), "--to", str(second)]) == 0
    written, again = contents(first), contents(second)
    assert written.keys() == again.keys()
    for name in written:
        if name.endswith((".md", ".csv", ".json")):
            assert written[name] == again[name], name
            assert str(tmp_path) not in written[name].decode()
    first = written["README.md"].decode()
    assert "## 5. " in first and "![" in first.split("## 2. ")[0]
    for picture in re.findall(r"!\[.*?\]\((.*?)\)", first):
        assert picture in written, "every picture that the first page shows is there"
    page = written["details.md"].decode()
    assert "**h2d32** (" in page and "1 of 140 runs missing" in page and "+20." in page
    for name in ("quality.csv", "comparisons.csv", "best.csv", "times.csv", "quality.png", "runs.parquet"):
        assert f"optimal_indexer_config/{name}" in written
    assert sum(len(content) for content in written.values()) < 1_000_000
    assert "![" in written["optimal_indexer_config/README.md"].decode()
    assert "not tested" in written["claims.md"].decode()


def test_a_folder_without_studies_is_named(tmp_path, capsys):
    assert main([str(tmp_path), "--to", str(tmp_path / "out")]) == 1
    assert "holds a study.json" in capsys.readouterr().err
