"""What jobs took, as a sweep tells it when it ends, and what they are expected to take."""

import re
import time

import pytest
import torch

from dsa.spec import compose
from dsa.study import estimate
from dsa.study.estimate import Scales, done_since, scales, untimed
from dsa.study.messages import show_plan, show_time
from study.studies import drive, plans_of


@pytest.mark.slow
def test_the_time_of_the_jobs_is_told_beside_that_of_the_whole(tiny, outputs, capsys):
    plans = tiny()
    began = time.time()
    assert drive(plans, outputs).status == 0
    whole, folders = time.time() - began, list(outputs.glob(".jobs/*"))
    took = done_since(folders, began)
    assert len(took) == len(folders) == 3
    assert 0.3 * whole < sum(took) <= whole
    assert done_since(folders, time.time()) == [], "jobs of an earlier sweep do not count"
    timed = scales(outputs)
    assert timed.known and set(timed.ratios) <= {"base", "cohort", "control", "joint", "judge"}
    assert not scales(outputs / "elsewhere").known
    capsys.readouterr()
    show_time(outputs)
    assert re.search(r"in all; the 3 jobs done now took .*, \d+ % of that", capsys.readouterr().out)


def test_a_kind_of_job_is_scaled_by_those_of_its_kind_that_ended():
    timed = Scales({"base": [0.2, 0.3, 0.4], "cohort": [2.0, 2.0]})
    assert (timed.of("base"), timed.of("cohort"), timed.of("joint")) == (0.3, 2.0, 0.4)
    assert Scales({}).of("base") == 1.0


@pytest.mark.parametrize(("dtype", "product"), [("fp32", "float32"), ("bf16", "bfloat16")])
def test_where_nothing_has_ended_jobs_are_scaled_by_how_fast_the_machine_multiplies_in_their_format(
    dtype, product, monkeypatch
):
    measured = {"float32": 1e11, "bfloat16": 4e11}
    monkeypatch.setattr(estimate, "product_rate", lambda of, device: measured[str(of).removeprefix("torch.")])
    spec = compose(["trainer.accelerator=cpu", f"dtype={dtype}"])
    assert untimed(spec) == pytest.approx(estimate.RATE / (estimate.REACHED * measured[product]))


def test_the_speed_of_a_product_is_that_of_this_machine():
    ours = estimate.product_rate(torch.float32, "cpu")
    one = torch.ones(512, 512)
    begin = time.perf_counter()
    for _ in range(20):
        one = one @ one / 512
    assert 0.05 < ours * (time.perf_counter() - begin) / (20 * 2 * 512**3) < 50


def test_the_plan_tells_artifacts_jobs_hours_and_disk(outputs, capsys):
    plans = plans_of("name=x", "indexer=h1d8,h2d8", "data=mqar", "model=mqar", "pattern=causal", "selector.k=8",
                     "seq_len=64", "seed=0,1", f"output_dir={outputs}", judge="val")  # fmt: skip
    show_plan(plans)
    said = capsys.readouterr().out
    assert "2 conditions and 5 controls (dense, oracle, random, window, sink_window) x 1 length x 2 seeds, " in said
    assert "baseline: h1d8\n" in said and "2 seeds, 1 comparison a length" in said
    assert "14 runs: 14 missing" in said
    assert "bases 0 there, 2 missing; indexers 0 there, 4 missing; joint trainings 0 there, 14 missing" in said
    assert re.search(
        r"jobs to do: 2 base, 2 cohort, 2 control, 12 joint; about .+ \(by counted operations\), \d+ MB", said
    )
    assert not outputs.exists()
