"""What W&B is told of a whole study, read back from the offline file."""

import json
import time
from contextlib import suppress
from pathlib import Path

import pytest
from google.protobuf.message import DecodeError
from study_folder import write_study
from training.test_wandb import records

from dsa.analysis.judgement.analysis import analyse_folder
from dsa.analysis.output.files import write
from dsa.study.publish import PLACE, publish
from dsa.study.states import OF_A_RUN

pytestmark = pytest.mark.slow


def kept(study: Path) -> list:
    """Every record of the run, once W&B's own process has written the last one, which may be after `finish`."""
    for _ in range(100):
        with suppress(DecodeError):  # half of a record is there
            found = records(study / PLACE)
            if any(r.WhichOneof("record_type") == "exit" for r in found):
                return found
        time.sleep(0.1)
    raise TimeoutError("W&B wrote no end of the run")


@pytest.fixture
def study(tmp_path, monkeypatch) -> Path:
    """An analysed study of two conditions, without an account anywhere."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    folder = write_study(tmp_path / "outputs" / "some study", ["a", "b"], lengths=(128,), seeds=2)
    write(analyse_folder(folder), folder)
    planned_again(folder, logger={})
    return folder


def planned_again(folder: Path, **changes) -> None:
    """What a sweep's own plan says besides what the analysis reads of it."""
    path = folder / "study.json"
    plan = {"created": "some day"} | json.loads(path.read_text()) | changes
    runs = [dict.fromkeys(OF_A_RUN) | {"artifacts": {}} | run for run in plan["runs"]]
    path.write_text(json.dumps(plan | {"runs": runs}))


def test_an_offline_run_holds_verdict_table_figures_and_report(study):
    publish(study, mode="offline")
    publish(study, mode="offline")
    assert len(list((study / PLACE).glob("wandb/offline-run-*"))) == 1, "sent again, it replaces itself"
    found = kept(study)
    (start,) = [r.run for r in found if r.WhichOneof("record_type") == "run"]
    assert (start.run_id, start.job_type, start.run_group) == ("some-study-report", "report", "made_up some day")
    final = {
        "/".join(item.nested_key) or item.key: json.loads(item.value_json)
        for r in found
        if r.WhichOneof("record_type") == "summary"
        for item in r.summary.update
    }
    verdict = json.loads((study / "verdict.json").read_text())
    assert final["verdict"] == verdict["verdict"]
    assert final["best/L128/sentence"] == verdict["best"][0]["sentence"]
    names = {
        "/".join(item.nested_key) or item.key
        for r in found
        if r.WhichOneof("record_type") == "history"
        for item in r.history.item
    }
    for name in ("results", "report", "figures/quality", "figures/pareto_flops"):
        assert f"{name}/path" in names
    artifacts = [r.artifact for r in found if r.WhichOneof("record_type") == "artifact"]
    (files,) = [{e.path for e in a.manifest.contents} for a in artifacts if a.type == "report"]
    assert {"report.html", "verdict.json", "results.csv", "results.parquet", "figures/quality.svg"} <= files
    (end,) = [r.exit for r in found if r.WhichOneof("record_type") == "exit"]
    assert end.exit_code == 0


def test_a_study_that_was_not_logged_there_sends_nothing_unasked(study):
    publish(study)
    assert not (study / PLACE).exists()


def test_a_study_goes_where_its_runs_went(study):
    planned_again(study, logger={"project": "elsewhere", "entity": None, "mode": "offline"})
    publish(study)
    (start,) = [r.run for r in kept(study) if r.WhichOneof("record_type") == "run"]
    assert (start.project, start.run_group) == ("elsewhere", "made_up some day")


def test_a_study_that_was_not_analysed_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"python -m dsa\.analysis"):
        publish(tmp_path)
