"""A whole study on W&B, offline: as its runs wrote it, and as sync rebuilds it."""

import json

import pytest
from training.test_wandb import records

from dsa.study.__main__ import main
from dsa.study.sync import sync
from study.studies import drive

pytestmark = pytest.mark.slow
DRAWN = {"val/loss", "val/delta_loss", "val/swap_loss", "select/mass", "select/density", "cost/flops", "speed/step_ms",
         "cost/indexer_params", "memory/peak_mb"}  # fmt: skip


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    from study.studies import TINY, plans_of

    outputs = tmp_path_factory.mktemp("wandb") / "outputs"
    plans = plans_of(
        "name=tiny", "indexer=h1d8,h2d8", "seed=0,1", *TINY, "logger=wandb", "logger.mode=offline",
        f"output_dir={outputs}", exploratory=True,
    )  # fmt: skip
    plans[0].runs[:] = [run for run in plans[0].runs if run.label in ("dense", "h1d8", "h2d8")]
    assert drive(plans, outputs).status == 0
    return outputs / "tiny"


def kept(folder, below):
    """Every run that W&B keeps in this folder's runs: its record and its summary."""
    out = []
    for place in sorted(folder.glob(f"*/{below}")):
        found = records(place.parent)
        (start,) = [r.run for r in found if r.WhichOneof("record_type") == "run"]
        summary = {
            "/".join(item.nested_key) or item.key: json.loads(item.value_json)
            for r in found
            if r.WhichOneof("record_type") == "summary"
            for item in r.summary.update
        }
        out.append((start, summary))
    return out


def check(runs, group):
    assert {start.run_group for start, _ in runs} == {group}
    for start, summary in runs:
        config = {update.key: json.loads(update.value_json) for update in start.config.update}
        tags = {f"L{config['seq_len']}", f"seed{config['seed']}"}
        tags |= {f"{part}:{config[part]}" for part in ("indexer", "pattern", "selector", "precision")}
        assert set(start.tags) == tags
        assert start.job_type.startswith(config["indexer"].rstrip("~")) or start.job_type in ("dense", "base")
        assert start.run_id.endswith(start.display_name.replace("~", "-"))
        assert config["run_id"] == start.display_name
        assert summary["status"] == "finished"
        if start.job_type in ("h1d8", "h2d8"):
            assert summary.keys() >= DRAWN


def test_every_run_says_what_a_dashboard_of_the_study_needs(study):
    created = json.loads((study / "study.json").read_text())["created"]
    own, dense = kept(study, "wandb"), kept(study.parent / "dense", "wandb")
    check(own, f"tiny {created}")
    check(dense, "dense")
    assert sorted(start.job_type for start, _ in own) == ["h1d8", "h1d8", "h2d8", "h2d8"]
    ids = [start.run_id for start, _ in own + dense]
    assert len(set(ids)) == len(ids) == 8


def test_sync_rebuilds_the_whole_study_and_repeating_it_changes_nothing(study, capsys):
    live = {start.run_id for start, _ in kept(study, "wandb") + kept(study.parent / "dense", "wandb")}
    done = sync(study, "offline")
    assert (len(done.sent), done.unchanged, done.lost) == (10, [], [])
    created = json.loads((study / "study.json").read_text())["created"]
    own, dense = kept(study, "wandb-rebuilt/wandb"), kept(study.parent / "dense", "wandb-rebuilt/wandb")
    check(own, f"tiny {created}")
    check(dense, "dense")
    rebuilt = {start.run_id for start, _ in own + dense}
    linked = {start.run_id for start, _ in own if start.job_type == "dense"}
    assert len(linked) == 2, "the controls, taken from the dense runs"
    assert rebuilt - linked == live
    files = {file: file.stat().st_mtime_ns for file in study.parent.glob("*/*/wandb-rebuilt/**/*")}
    again = sync(study, "offline")
    assert (again.sent, len(again.unchanged), again.lost) == ([], 10, [])
    assert {file: file.stat().st_mtime_ns for file in files} == files


def test_browse_opens_the_report_or_says_how_to_get_one(study, capsys, monkeypatch):
    opened = []
    monkeypatch.setattr("webbrowser.open", lambda address: bool(opened.append(address)))
    assert main(["browse", str(study)]) == 1
    said = capsys.readouterr()
    assert "wandb leet" in said.out
    assert "python -m dsa.study conclude" in said.err
    (study / "report.html").write_text("<html></html>")
    assert main(["browse", str(study)]) == 0
    assert opened == [(study / "report.html").resolve().as_uri()]
    assert str((study / "report.html").resolve()) in capsys.readouterr().out
