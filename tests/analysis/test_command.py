"""The command: what it prints and leaves in a study's folder."""

import json
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import pytest
from made_up import meta_of, result_of

from dsa.analysis.__main__ import main

pytestmark = pytest.mark.slow


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A folder as the study writes it: seed 7 is missing, the dense control lies in the folder of the dense runs."""
    folder = tmp_path / "made_up"
    meta = meta_of({"a": {"indexer": "a"}, "=b[i]": {"indexer": "b"}})
    for run in meta.runs:
        dense = run["label"] == "dense"
        run["study"] = "dense" if dense else "made_up"
        if run["seed"] == 7:
            continue
        loss = {"a": 1.2, "=b[i]": 1.1, "dense": 1.0, "random": 2.0, "window": 1.5}.get(run["label"], 1.0)
        at = folder.parent / run["study"] / run["run_id"]
        at.mkdir(parents=True)
        result = result_of(run, loss + 0.01 * run["seed"] + 0.001 * (len(run["label"]) * run["seed"] % 3), 1.0, 1.5)
        (at / "result.json").write_text(json.dumps(result))
    (folder / "study.json").write_text(json.dumps(asdict(meta)))
    return folder


def test_the_command_prints_tables_and_leaves_three_files(study, capsys):
    assert main([str(study)]) == 0
    out = capsys.readouterr().out
    assert "supported" in out and "=b[i]" in out and "1 runs missing" in out
    verdict = json.loads((study / "verdict.json").read_text())
    assert verdict["schema"] == 2 and verdict["rule"]["name"] == "sign-flip-holm-and-no-loss"
    assert verdict["verdict"] == "supported"
    assert {gap["seed"] for gap in verdict["gaps"]} == {7}
    assert verdict["efficiency"]["formula"]
    for table in (pd.read_csv(study / "results.csv"), pd.read_parquet(study / "results.parquet")):
        assert len(table) == 6 * 7
        assert {"label", "kind", "seq_len", "seed", "val_loss", "flops.indexer"} <= set(table)
    assert "'=b[i]" in set(pd.read_csv(study / "results.csv")["label"]), "no formula in a spreadsheet"
    assert not list(study.glob(".*"))


def test_a_damaged_result_counts_as_failed(study):
    (study / "a-L64-s0" / "result.json").write_text("{")
    assert main([str(study)]) == 0
    gaps = json.loads((study / "verdict.json").read_text())["gaps"]
    assert [g["state"] for g in gaps if g["label"] == "a"] == ["failed", "missing"]


def test_a_folder_that_is_no_study_is_named(tmp_path, capsys):
    assert main([str(tmp_path)]) == 2
    assert "study.json does not exist" in capsys.readouterr().err
