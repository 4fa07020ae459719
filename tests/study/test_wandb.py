"""A whole study on W&B, offline: as its runs wrote it, and as sync rebuilds it."""

import json
import shutil
import sys
from types import SimpleNamespace

import pytest
from training.test_wandb import records

from dsa.doors.command import carried_out
from dsa.study import publish
from dsa.study.__main__ import main
from dsa.study.sync import sync
from study.studies import TINY, drive, planned

pytestmark = pytest.mark.slow
DRAWN = {"val/loss", "val/delta_loss", "val/swap_loss", "select/mass", "select/density", "cost/flops", "speed/step_ms",
         "cost/indexer_params", "memory/peak_mb"}  # fmt: skip


MOST = 6  # judged runs with a run of their own


def command(arguments):
    """What is typed behind `dsa`; its exit status."""
    before = list(sys.argv)
    try:
        return carried_out(arguments)
    finally:
        sys.argv = before


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Two indexers and dense attention under two seeds, after joint training and with the backbone untouched."""
    outputs = tmp_path_factory.mktemp("wandb") / "outputs"
    yaml = {"judge": "both", "conditions": {"indexer": ["h1d8", "h2d8"]}, "controls": ["dense"], "seed": [0, 1]}
    given = [*TINY, "logger=wandb", "logger.mode=offline", f"logger.judgement_runs={MOST - 1}"]
    plan = planned(yaml, *given, "name=tiny", f"output_dir={outputs}")
    assert drive([plan], outputs).status == 0
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
        tags |= {f"{part}:{config[part]}" for part in ("data", "indexer", "pattern", "selector", "precision")}
        assert set(start.tags) == tags
        assert start.job_type in (config["indexer"].rstrip("~"), "dense")
        assert start.run_id.endswith(start.display_name.replace("~", "-"))
        assert config["run_id"] == start.display_name
        assert summary["status"] == "finished"
        if start.job_type in ("h1d8", "h2d8"):
            timed = "-swap-" not in start.display_name  # what is judged in a batch is not
            assert summary.keys() >= (DRAWN if timed else DRAWN - {"memory/peak_mb"})


def curves(folder):
    """Names of the metrics in the history of a run that is kept."""
    rows = [record.history for record in records(folder) if record.WhichOneof("record_type") == "history"]
    return {"/".join(item.nested_key) or item.key for row in rows for item in row.item}


def test_every_run_says_what_a_dashboard_of_the_study_needs(study):
    created = json.loads((study / "study.json").read_text())["created"]
    own, bases, controls = (kept(study.parent / place, "wandb") for place in ("tiny", "bases", "joint"))
    check(own, f"tiny {created}")
    joint = [start.job_type for start, _ in own if "-swap-" not in start.display_name]
    swap = [start.job_type for start, _ in own if "-swap-" in start.display_name]
    assert sorted(joint) == ["dense", "dense", "h1d8", "h1d8", "h2d8", "h2d8"]
    assert len(swap) == MOST - 1 < 6, "beyond logger.judgement_runs nothing is sent of a judged run"
    assert sorted(start.job_type for start, _ in bases + controls) == ["base", "base", "control", "control"]
    assert {start.run_group for start, _ in bases + controls} == {"dense"}
    ids = [start.run_id for start, _ in own + bases + controls]
    assert len(set(ids)) == len(ids)


def test_a_cohort_is_one_run_with_a_curve_for_each_indexer(study):
    created = json.loads((study / "study.json").read_text())["created"]
    cohorts = kept(study.parent / ".jobs", "wandb")
    assert {start.run_group for start, _ in cohorts} == {f"tiny {created}"}
    assert [start.job_type for start, _ in cohorts] == ["cohort"] * 2
    for place in study.parent.glob(".jobs/cohort-*/wandb"):
        assert curves(place.parent) >= {"warmup/indexer_loss/h1d8", "warmup/indexer_loss/h2d8", "warmup/step"}


def test_sync_rebuilds_the_whole_study_and_repeating_it_changes_nothing(study, capsys):
    live = {start.run_id for place in ("tiny", "bases", "joint") for start, _ in kept(study.parent / place, "wandb")}
    done = sync(study, "offline")
    assert (len(done.sent), done.unchanged, done.lost) == (12 + 2 + 2 + 2, [], [])
    created = json.loads((study / "study.json").read_text())["created"]
    own, bases, controls, cohorts = (
        kept(study.parent / place, "wandb-rebuilt/wandb") for place in ("tiny", "bases", "joint", "tiny/.cohorts")
    )
    check(own, f"tiny {created}")
    rebuilt = {start.run_id for start, _ in own + bases + controls}
    assert rebuilt >= live and len(rebuilt - live) == 1, "the judged run that was silent is there too"
    assert [start.job_type for start, _ in cohorts] == ["cohort"] * 2
    for place in study.glob(".cohorts/*/wandb-rebuilt"):
        assert curves(place) >= {"warmup/indexer_loss/h1d8", "warmup/indexer_loss/h2d8"}
    sent = study.parent.glob("*/*/wandb-rebuilt/**/*")  # but for its logs: W&B's service writes them when it likes
    files = {file: file.stat().st_mtime_ns for file in sent if file.name != "logs" and file.suffix != ".log"}
    assert files
    again = sync(study, "offline")
    assert (again.sent, len(again.unchanged), again.lost) == ([], 18, [])
    assert {file: file.stat().st_mtime_ns for file in files} == files


def test_a_result_that_cannot_be_read_is_told_as_lost_and_keeps_nothing_back(study, tmp_path):
    copy = shutil.copytree(study.parent, tmp_path / "outputs") / study.name
    damaged = next(copy.glob("*/result.json"))
    damaged.write_text(damaged.read_text()[:-9])
    done = sync(copy, "offline")
    assert done.lost == [damaged.parent]
    assert len(done.sent + done.unchanged) == 17


def test_the_report_s_run_is_in_the_study_s_group_and_has_a_row_for_every_run(study, monkeypatch):
    created = json.loads((study / "study.json").read_text())["created"]
    verdict = {"study": "tiny", "lengths": [64], "verdict": "inconclusive"}
    identity = publish.identity(study, verdict, f"tiny {created}")
    assert (identity["name"], identity["group"], identity["id"]) == ("tiny report", f"tiny {created}", "tiny-report")
    table = publish.table_of(study)
    assert len(table) == 12
    assert sorted(table["judge"]) == ["swap"] * 6 + ["val"] * 6
    assert table["swap_val_loss"].notna().all()


def on_panels(node):
    """Every key that a panel of a workspace or report shows, as (section of W&B, name)."""
    if isinstance(node, list):
        return set().union(*map(on_panels, node)) if node else set()
    if not isinstance(node, dict):
        return set()
    if "viewType" not in node:
        return on_panels(list(node.values()))
    settings = node["config"]
    named = [settings[axis] for axis in ("xAxis", "yAxis") if axis in settings] + settings.get("metrics", [])
    out = set()
    for key in named:
        place, _, name = key.partition("." if key.startswith("summary_metrics.") else ":")
        out.add((place.removesuffix("_metrics"), name.removesuffix(".value")) if name else ("history", key))
    return out


def test_every_key_on_a_panel_of_the_dashboard_is_in_the_offline_files(study, capsys, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    assert command(["dashboard", str(study), "--mode", "offline"]) == 0
    said = capsys.readouterr().out
    assert said.count("\n") == 1 and "--mode online" in said and "dsa.study sync" in said
    workspace, report = (
        json.loads((study / "dashboard" / f"{name}.json").read_text()) for name in ("workspace", "report")
    )
    runs = kept(study, "wandb")
    places = [*study.glob("*/wandb"), *study.parent.glob(".jobs/cohort-*/wandb")]
    there = {("summary", name) for _, summary in runs for name in summary}
    there |= {("config", update.key) for start, _ in runs for update in start.config.update}
    there |= {("history", name) for place in places for name in curves(place.parent)}
    shown = on_panels(workspace)
    assert shown - there == set()
    assert on_panels(report) == shown
    assert shown >= {("config", "seq_len"), ("summary", "val/swap_loss"), ("summary", "val/loss"),
                     ("summary", "cost/flops"), ("summary", "select/layer_00/mass"), ("history", "sparse/loss"),
                     ("history", "warmup/indexer_loss/h1d8")}  # fmt: skip
    created = json.loads((study / "study.json").read_text())["created"]
    (chosen,) = workspace["spec"]["section"]["runSets"][0]["filters"]["filters"]
    assert (chosen["key"]["name"], chosen["op"], chosen["value"]) == ("group", "=", f"tiny {created}")
    assert publish.TABLE in json.dumps(workspace), "the table of every run, which the study's report logs"


def test_what_no_run_has_stands_on_no_panel():
    from dsa.study.boards import Known, panels

    nothing: frozenset[str] = frozenset()
    assert list(panels(Known(nothing, nothing, nothing))) == ["Every run"]
    only = panels(Known(frozenset({"seq_len"}), nothing, frozenset({"val/swap_loss"})))
    assert {name: len(mine) for name, mine in only.items()} == {"Quality by length": 1, "Every run": 1}


def test_a_dashboard_is_sent_to_the_owner_of_the_key_and_a_refusal_keeps_it(study, capsys, monkeypatch):
    import wandb
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

    sent = []
    monkeypatch.setattr(wandb, "Api", lambda: SimpleNamespace(default_entity="somebody"))
    for kind in (ws.Workspace, wr.Report):
        monkeypatch.setattr(kind, "save", lambda self: sent.append((type(self).__name__, self.entity, self.project)))
        monkeypatch.setattr(kind, "url", property(lambda self: f"https://wandb.test/{self.entity}/{self.project}"))
    assert command(["dashboard", str(study), "--mode", "online"]) == 0
    assert sent == [("Workspace", "somebody", "dsa"), ("Report", "somebody", "dsa")]
    assert capsys.readouterr().out.splitlines() == ["https://wandb.test/somebody/dsa"] * 2

    def refuse(self):
        raise wandb.errors.CommError("no route to host")

    monkeypatch.setattr(ws.Workspace, "save", refuse)
    assert command(["dashboard", str(study), "--mode", "online"]) == 1
    assert "no route to host" in capsys.readouterr().err and (study / "dashboard" / "report.json").exists()


def test_a_dashboard_without_its_package_or_its_study_is_told_in_a_sentence(tmp_path, capsys, monkeypatch):
    assert command(["dashboard", str(tmp_path)]) == 2
    assert "no study.json there" in capsys.readouterr().err
    monkeypatch.setattr("dsa.doors.dashboard.find_spec", lambda name: None)
    assert command(["dashboard", str(tmp_path)]) == 2
    assert "pip install -e '.[dashboard]'" in capsys.readouterr().err


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
