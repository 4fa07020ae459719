import math
import time
from types import SimpleNamespace

import pytest
import torch
from conftest import options

from dsa import compose
from dsa.build import build_data, build_model, instantiate
from dsa.model import Pass
from dsa.study.applicable import memory_needed
from dsa.study.lists import as_list
from dsa.study.power import seeds_needed, smallest_p, visible_effect
from dsa.study.spec import expand
from dsa.training.measure import peak_megabytes
from dsa.training.objective import language_model_loss
from dsa.training.plan import Plan
from study.studies import load, plans_of

FAST = ["data=mqar", "model=mqar", "pattern=causal", "selector.k=8", "exploratory=true"]


def labels(block, groups=("indexer", "pattern", "precision")):
    return [label for label, _ in expand(block, set(groups))]


@pytest.mark.parametrize(("text", "values"), [("0,1,2", [0, 1, 2]), ("[4,5]", [4, 5]), ("range(0,3)", [0, 1, 2])])
def test_lists_may_be_written_in_three_ways(text, values):
    assert as_list(text) == values


def test_a_block_is_the_product_of_its_lists():
    assert labels({"indexer": ["a", "b"], "precision": ["x", "y"]}) == ["a-x", "a-y", "b-x", "b-y"]


def test_zip_pairs_its_lists():
    assert labels({"zip": {"indexer": ["a", "b"], "pattern": ["x", "y"]}}) == ["a-x", "b-y"]


def test_zip_refuses_lists_of_different_lengths():
    with pytest.raises(ValueError, match="indexer 2, pattern 1"):
        labels({"zip": {"indexer": ["a", "b"], "pattern": ["x"]}})


def test_bases_come_first_and_once_then_controls_then_the_rest(outputs):
    (plan,) = plans_of("name=x", "indexer=h1d8,h2d8", "seed=0,1", "seq_len=64,128", *FAST, f"output_dir={outputs}")
    kinds = [run.kind for run in plan.applicable]
    assert kinds == ["base"] * 4 + ["control"] * 4 + ["run"] * 20
    assert len({run.config_hash for run in plan.applicable}) == 28


def test_equal_conditions_are_one_run(outputs):
    (plan,) = plans_of("name=x", "indexer=h1d8,h1d8", "seq_len=64", *FAST, f"output_dir={outputs}")
    assert len({run.config_hash for run in plan.applicable if run.role == "condition"}) == 1


@pytest.mark.parametrize(
    "overrides",
    [
        ["indexer=h1d16", "precision=fp16", "pattern=local_global", "selector=ratio_50"],
        ["indexer=h2d8", "selector.k=12", "pattern=causal", "optimizer=adam"],
        ["experiment=recall", "indexer=h1d8"],
    ],
)
def test_merged_configurations_hash_as_composed_ones_do(overrides, outputs):
    common = ["data=mqar", "model=mqar", "seq_len=128", "seed=3", f"output_dir={outputs}"]
    (plan,) = plans_of("name=x", "exploratory=true", *common, *overrides)
    cfg = compose([*common, *overrides])
    planned = next(run for run in plan.runs if run.role == "condition")
    assert planned.config_hash == Plan(cfg, build_data(cfg)).config_hash


def test_shares_of_the_length_are_worked_out_in_the_plan(outputs):
    (plan,) = plans_of("study=quick", "seed=0", f"output_dir={outputs}")
    assert {(run.seq_len, run.cfg.selector.k) for run in plan.runs if run.role == "condition"} == {(64, 8), (128, 8)}


def test_a_budget_that_reaches_the_length_is_not_applicable_and_says_why(outputs):
    (plan,) = plans_of("name=x", "pattern=causal,local_global_64_128", "seq_len=64,512", "data=mqar", "model=mqar",
                       "exploratory=true", f"output_dir={outputs}")  # fmt: skip
    reasons = {(run.label, run.seq_len): run.reason for run in plan.runs if run.role == "condition"}
    assert "so attention is dense" in reasons["local_global_64_128", 64]
    assert reasons["local_global_64_128", 512] is None


def test_too_few_seeds_are_refused_unless_exploratory(outputs):
    given = ["study=optimal_indexer_config", "seq_len=64", f"output_dir={outputs}"]
    with pytest.raises(ValueError, match="Give 10 seeds"):
        plans_of(*given, "seed=range(0,8)")
    (plan,) = plans_of(*given, "seed=range(0,2)", exploratory=True)
    assert plan.study.exploratory


def test_power_agrees_with_published_figures():
    assert visible_effect(8) == pytest.approx(1.16, abs=0.01)
    assert visible_effect(5) == pytest.approx(1.68, abs=0.01)
    assert math.isinf(visible_effect(1))
    assert (seeds_needed(13), seeds_needed(39), smallest_p(8)) == (10, 11, 2**-7)


@pytest.mark.slow
@pytest.mark.parametrize("study", [s for s in options("study") if s not in ("research", "all")])
def test_every_shipped_study_can_be_planned(study, outputs):
    seeds = "seed=0" if study != "quick" else "seed=0,1,2"
    (plan,) = plans_of(f"study={study}", seeds, "seq_len=128", f"output_dir={outputs}", exploratory=True)
    assert {run.role for run in plan.applicable} == {"base", "control", "condition"}
    assert plan.study.baseline in plan.study.conditions


def test_the_combinations_are_twenty():
    assert len(load(["study=optimization_combinations"]).plan.conditions) == 20


def test_an_unknown_key_in_a_study_is_named(outputs):
    with pytest.raises(ValueError, match="unknown key colour"):
        plans_of("study=quick", "+plan.colour=red", f"output_dir={outputs}")


def test_models_that_a_machine_has_no_memory_for_are_not_applicable(outputs, monkeypatch):
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(total=2 * 2**30))
    (plan,) = plans_of("study=model_scaling", "seed=0", f"output_dir={outputs}", exploratory=True)
    reasons = {run.label: run.reason for run in plan.runs if run.role == "condition"}
    assert reasons["d256-h2d32"] is None
    assert reasons["d512-h2d32"] == "training needs about 3 GB, this machine has 2"
    assert "this machine has 2" in reasons["d1024-h4d64"]


@pytest.mark.slow
def test_the_memory_that_training_needs_is_foreseen_within_a_factor_of_two():
    cfg = compose([*FAST[2:4], "model.d_model=128", "seq_len=256", "indexer=h2d32", "dtype=fp32", "ops=blocked"])
    model = build_model(cfg, 256)
    optimizer = instantiate(cfg, "optimizer")([{"params": list(model.parameters()), "lr": 1e-3}])
    tokens = torch.zeros(cfg.data.batch_size, cfg.seq_len, dtype=torch.long)

    def step():
        logits, loss = model.run(tokens, Pass(teach=True))
        (language_model_loss(logits, tokens) + loss).backward()
        optimizer.step()

    measured = peak_megabytes(step, torch.device("cpu")) + sum(p.numel() for p in model.parameters()) * 4 / 2**20
    assert 0.5 < memory_needed(cfg) / 2**20 / measured < 2


@pytest.mark.slow
def test_a_thousand_runs_are_planned_within_ten_seconds(outputs):
    begin = time.process_time()
    (plan,) = plans_of(
        "study=quick",
        "indexer=h1d8,h1d16,h2d8,h2d16,h4d64",
        "seed=range(0,50)",
        "seq_len=64,128",
        f"output_dir={outputs}",
    )
    assert len(plan.runs) == 1000
    assert time.process_time() - begin < 10
