"""Results of version 0.1 are never pooled with those of now: whoever reads them says in a sentence who can."""

import json
import logging
from dataclasses import asdict
from pathlib import Path

import pytest
from analysis.made_up import meta_of, result_of

from dsa import load_run, load_study
from dsa.analysis.inputs.prepared import prepare
from dsa.doors.compare import main as compare
from dsa.study.__main__ import main

TOLD = "schema 1; dsa 0.1 wrote it and reads it"
OPTIONS = {"indexer": "h1d8", "pattern": "causal", "selector": "topk", "precision": "fp32"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A study whose first seed version 0.1 trained, in its own plan, and whose second this one did."""
    meta = meta_of({"a": {"indexer": "h1d8"}}, seeds=2, planned=())
    for run in meta.runs:
        run |= {"kind": "condition", "context": ""}
        place = tmp_path / "made_up" / run["run_id"]
        place.mkdir(parents=True)
        result = result_of(run, 1.0 + run["seed"], 1.0, 1.5, schema=1 + run["seed"], condition=OPTIONS)
        (place / "result.json").write_text(json.dumps(result))
    (tmp_path / "made_up" / "study.json").write_text(json.dumps(asdict(meta)))
    return tmp_path / "made_up"


def test_a_table_leaves_them_out_and_says_so(folder, caplog):
    with caplog.at_level(logging.WARNING):
        frame = load_study(folder)
    assert frame["val_loss"].tolist() == [2.0]
    assert f"1 of 2 results have {TOLD}. They are left out." in caplog.text
    (folder / "a-L64-s1" / "result.json").unlink()
    with pytest.raises(ValueError, match=f"1 of 1 results have {TOLD}"):
        load_study(folder)


def test_a_model_is_not_loaded_from_one(folder):
    with pytest.raises(ValueError, match=f"a-L64-s0: its result has {TOLD}"):
        load_run(folder / "a-L64-s0")


def test_the_analysis_counts_one_as_failed(folder):
    prepared = prepare(folder)
    assert prepared.runs["seed"].tolist() == [1]
    (gap,) = prepared.gaps
    assert (gap.seed, gap.state) == (0, "failed") and TOLD in gap.reason


def test_status_does_not_offer_to_keep_them(folder, capsys):
    assert main(["status", str(folder)]) == 2
    said = capsys.readouterr().err
    assert "Plan it again: python sweep.py name=made_up, with the lists" in said
    assert TOLD in said and "made anew" in said and "stale=keep" not in said


def test_beside_others_one_has_no_numbers(folder, capsys):
    assert compare([str(folder)]) == 0
    assert TOLD in capsys.readouterr().out
