"""A batch of judgements: one load of the base, each number once, kilobytes a composition."""

from pathlib import Path

import pytest

from dsa.judging import judge, models
from dsa.training.log import read_rows
from study.studies import TINY, drive, planned

pytestmark = pytest.mark.slow
PATTERNS = ["causal", "sinks", "strided_2"]


def study(outputs, patterns, *more):
    """Some patterns with one indexer and dense attention, judged with the backbone untouched."""
    given = [argument for argument in TINY if not argument.startswith(("pattern=", "logger="))]
    yaml = {"judge": "swap", "conditions": {"pattern": patterns}, "controls": ["dense", "window"]}
    return planned(yaml, *given, *more, "name=tiny", "indexer=h1d8", "seq_len=64", f"output_dir={outputs}")


def held(outputs: Path) -> dict[Path, int]:
    """Bytes of every file below a folder."""
    return {path: path.stat().st_size for path in outputs.rglob("*") if path.is_file()}


def test_a_batch_loads_its_base_once_and_judges_dense_attention_once(outputs, monkeypatch):
    loads, evaluated = [], []
    build, evaluate = models.build_backbone, judge.evaluated
    monkeypatch.setattr(models, "build_backbone", lambda *given: loads.append(given[0].seed) or build(*given))
    monkeypatch.setattr(judge, "evaluated", lambda *given, sparse: evaluated.append(sparse) or evaluate(*given, sparse))
    assert drive([study(outputs, PATTERNS, "logger=csv")], outputs).status == 0
    assert len(loads) == 1, "one base, one load"
    assert evaluated.count(False) == 1, "dense attention, for all of them"
    assert len(evaluated) == len(list((outputs / "judgements").glob("*.json"))), "each judgement once"


@pytest.mark.parametrize("logger", ["csv", "tensorboard"])
def test_a_composition_that_is_judged_costs_kilobytes(outputs, logger):
    chosen = [f"logger={logger}"]
    assert drive([study(outputs, PATTERNS[:1], *chosen)], outputs).status == 0
    before = held(outputs)
    assert drive([study(outputs, PATTERNS, *chosen)], outputs).status == 0
    new = {path: size for path, size in held(outputs).items() if path not in before}
    runs = len(PATTERNS) - 1
    dashboards = sum(size for path, size in new.items() if "tensorboard" in path.parts)
    own = [path for path in new if path.parent.parent.name == "tiny" or path.parent.name == "judgements"]
    assert not any("weights" in path.name for path in new), "weights are not copied"
    assert 2_000 * runs < sum(new[path] for path in own) < 40_000 * runs
    assert dashboards < 60_000 * runs and (dashboards > 0) == (logger == "tensorboard")


def test_a_cohort_is_a_table_and_a_tensorboard_run_in_its_job_s_folder(outputs):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    yaml = {"judge": "swap", "conditions": {"indexer": ["h1d8", "h2d8"]}, "controls": ["dense"]}
    given = [argument for argument in TINY if not argument.startswith("logger=")]
    plan = planned(yaml, *given, "name=tiny", "seq_len=64", "logger=tensorboard", f"output_dir={outputs}")
    assert drive([plan], outputs).status == 0
    (table,) = outputs.glob(".jobs/cohort-*/cohort-*.csv")
    warmup = plan.runs[0].spec.recipe.warmup_steps
    curves = {f"train/{name}/{label}" for name in ("indexer_loss", "lr_indexers") for label in ("h1d8", "h2d8")}
    rows = read_rows(table)
    assert len(rows) == warmup > 0 and rows[0].keys() >= curves
    told = events.EventAccumulator(str(table.parent / "tensorboard")).Reload()
    assert {*told.Tags()["scalars"]} >= {name.replace("train/", "warmup/") for name in curves}
    assert [event.value for event in told.Scalars("warmup/indexer_loss/h2d8")] == pytest.approx(
        [float(row["train/indexer_loss/h2d8"]) for row in rows]
    )
