"""A study's plan: its runs, and what they need."""

import re
import time
from types import SimpleNamespace

import pytest
from composed import by_hydra
from omegaconf import OmegaConf

from dsa.analysis.inputs.scale import SCALES
from dsa.analysis.judgement.hypothesis import CLAIMS as JUDGED
from dsa.artifacts.names import CLAIMS, METRICS
from dsa.build import build_data
from dsa.graph import graph_of, run_id
from dsa.spec import spec_of
from dsa.study.composer import Composer
from dsa.study.conditions import expand
from dsa.study.jobs import IN_ORDER
from dsa.study.lists import as_list
from dsa.study.messages import show_plan
from dsa.study.options import private_keys
from dsa.study.outlook import outlook
from dsa.study.question import read
from dsa.study.workers.launch import workers
from study.studies import FAST, INDEXERS, TINY, TWO, jobs_of, load, planned, plans_of


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


@pytest.mark.parametrize(
    ("judge", "counts"),
    [
        ("swap", {"base": 4, "cohort": 4, "judge": 4}),
        ("val", {"base": 4, "cohort": 4, "control": 4, "joint": 24}),
        ("both", {"base": 4, "cohort": 4, "control": 4, "joint": 24, "judge": 4}),
    ],
)
def test_what_others_stand_on_comes_first_and_once(judge, counts, outputs):
    given = ["name=x", "indexer=h1d8,h2d8", "seed=0,1", "seq_len=64,128", *FAST, f"output_dir={outputs}"]
    (plan,) = plans_of(*given, judge=judge)
    jobs = jobs_of(plan, outputs)
    kinds = [job.kind for job in jobs]
    assert kinds == [kind for kind in IN_ORDER for _ in range(counts.get(kind, 0))]
    assert {len(job.makes) for job in jobs if job.kind == "cohort"} == {2}, "both indexers of a base at once"
    carried = [run.key for job in jobs for run in job.runs]
    assert len(carried) == len(set(carried)) == len(plan.runs) == (56 if judge == "both" else 28)


@pytest.mark.slow
def test_formats_and_patterns_share_what_was_trained(outputs):
    given = ["name=x", "precision=fp32,fp16,int8", "indexer=h1d8", "data=mqar", "model=mqar", "selector.k=8",
             "exploratory=true"]  # fmt: skip
    (plan,) = plans_of(*given, "pattern=causal,strided_2", "seq_len=64", f"output_dir={outputs}")
    joint = [job for job in jobs_of(plan, outputs) if job.kind == "joint" and job.first.role == "condition"]
    assert sorted(len(job.runs) for job in joint) == [3, 3], "one training a pattern, three formats on each"
    (cohort,) = [job for job in jobs_of(plan, outputs) if job.kind == "cohort"]
    assert len(cohort.makes) == 1
    (plan,) = plans_of(*given, "pattern=causal", "seq_len=64", "precision.in_training=true", f"output_dir={outputs}")
    (cohort,) = [job for job in jobs_of(plan, outputs) if job.kind == "cohort"]
    assert len(cohort.makes) == 3, "a format that takes part in training makes indexers of its own"


def test_a_format_in_training_may_be_a_condition(outputs):
    blocks = [
        {"name": "after", "precision": "int8"},
        {"name": "in", "precision": "int8", "precision.in_training": True},
    ]
    plan = planned(
        {"judge": "swap", "conditions": blocks}, *FAST, "seq_len=64", "indexer=h1d8", f"output_dir={outputs}"
    )
    assert {run.label: run.spec.in_training for run in plan.runs if run.role == "condition"} == {
        "after": False, "in": True
    }  # fmt: skip
    assert len({run.graph.indexers.hash for run in plan.runs if run.role == "condition"}) == 2


@pytest.mark.parametrize("common", [{}, {"index_every": 2}])
def test_layers_that_share_an_indexer_are_compared_on_one_base_beside_one_set_of_controls(common, outputs):
    yaml = {"judge": "swap", "conditions": {"index_every": [2, 1]}, "common": common, "controls": ["random", "static"]}
    plan = planned(yaml, *FAST, "seq_len=64", "indexer=h1d8", f"output_dir={outputs}")
    found = {run.label: run.spec.index_every for run in plan.runs}
    # of the controls the trained one shares what all conditions share, and nothing of a single one
    assert found == {"index_every2": 2, "index_every1": 1, "random": len(common) + 1, "static": len(common) + 1}
    assert len({run.graph.base.hash for run in plan.runs}) == 1
    (cohort,) = [job for job in jobs_of(plan, outputs) if job.kind == "cohort"]
    assert len(cohort.makes) == 3, "in one pass"


@pytest.mark.parametrize("typed", [False, True])
def test_a_study_compares_layers_that_lead_with_layers_in_a_row(typed, outputs):
    yaml = {"judge": "swap", "conditions": {"index_every": [1, 2] if typed else [1, 2, [0, 1]]}, "controls": []}
    given = ["index_every=1,2,[0,1]"] if typed else []
    plan = planned(yaml, *FAST, *given, "model.layers=3", "seq_len=64", "indexer=h1d8", f"output_dir={outputs}")
    found = {run.label: run.spec.index_every for run in plan.runs}
    assert found == {"index_every1": 1, "index_every2": 2, "index_every0.1": (0, 1)}


@pytest.mark.slow
def test_warm_ups_that_cannot_be_one_pass_are_cohorts_of_their_own(outputs):
    given = ("name=x", *TINY, "indexer=h1d8,h2d8", "steps=null", f"output_dir={outputs}")
    (plan,) = plans_of(*given, "recipe.warmup.steps=4,8", exploratory=True)
    cohorts = [job for job in jobs_of(plan, outputs) if job.kind == "cohort"]
    assert len({job.key for job in cohorts}) == 2
    assert {len({run.spec.recipe.warmup_steps for run, _ in job.makes}) for job in cohorts} == {1}
    (plan,) = plans_of(*given, "recipe.warmup.indexer_lr=1e-2,5e-3", exploratory=True)
    (cohort,) = [job for job in jobs_of(plan, outputs) if job.kind == "cohort"]
    assert len(cohort.makes) == 4, "rates may differ within one pass"


def test_equal_conditions_are_one_run(outputs):
    (plan,) = plans_of("name=x", "indexer=h1d8,h1d8", "seq_len=64", *FAST, f"output_dir={outputs}")
    assert len({run.hash for run in plan.applicable if run.role == "condition"}) == 1


def test_seeds_of_the_indexers_multiply_the_runs_that_have_any(outputs):
    given = [*FAST, "seq_len=64", "seed=3,4", f"output_dir={outputs}"]
    plan = planned(TWO | {"judge": "swap", "indexer_seed": "7,8"}, *given)
    pairs = {(run.seed, run.spec.indexer_seed) for run in plan.runs if run.role == "condition"}
    assert pairs == {(3, 7), (3, 8), (4, 7), (4, 8)}
    assert len([run for run in plan.runs if run.role == "condition"]) == 8
    assert len([run for run in plan.runs if run.role == "control"]) == 10, (
        "a control has no indexer, and runs once a seed"
    )
    plan = planned(TWO | {"judge": "swap"}, *given)
    assert {(run.seed, run.spec.indexer_seed) for run in plan.runs} == {(3, 3), (4, 4)}


@pytest.mark.slow
@pytest.mark.parametrize("judge", ["val", "swap"])
@pytest.mark.parametrize(
    "overrides",
    [
        ["indexer=h1d16", "precision=fp16", "pattern=local_global", "selector=ratio_50"],
        ["indexer=h2d8", "selector.k=12", "pattern=causal", "optimizer=adam"],
        ["experiment=recall", "indexer=h1d8", "indexer_seed=5"],
        ["selector=random", "selector.k=8", "pattern=causal", "data.pairs=3"],
    ],
)
def test_planned_runs_are_those_that_train_py_would_compose(overrides, judge, outputs):
    common = ["data=mqar", "model=mqar", "seq_len=128", "steps=50", "callbacks=quiet", f"output_dir={outputs}"]
    (plan,) = plans_of("name=x", "exploratory=true", *common, *overrides, "seed=3,5", judge=judge)
    spec = spec_of(by_hydra([*common, *overrides, "seed=5", "name=x", f"judge={judge}"]))
    run = next(run for run in plan.runs if run.role == "condition" and run.seed == 5)
    assert run.spec.content == spec.content
    assert run.spec == spec
    graph = graph_of(spec, build_data(spec).fingerprint)
    assert (run.hash, run.run_id) == (graph.hash, run_id(spec, graph))


@pytest.mark.slow
def test_shares_of_the_length_are_worked_out_in_the_plan(outputs):
    (plan,) = plans_of("study=quick", "seed=0", f"output_dir={outputs}")
    budgets = {(run.seq_len, run.spec.selector.node["k"]) for run in plan.runs if run.role == "condition"}
    assert budgets == {(64, 8), (128, 8)}


@pytest.mark.slow
def test_the_plan_says_which_effect_its_seeds_see_and_from_how_many_on_no_loss_can_be_shown():
    def told(seeds: int) -> str:
        study = {"seed": list(range(seeds)), "conditions": {"indexer": INDEXERS}}
        return outlook(planned(study, *FAST, "seq_len=64").study)

    assert re.search(r"an effect of (1\.9|2\.0)\d standard", told(10)) and "can be shown from 25 seeds on" in told(10)
    assert "can be shown too" in told(25)
    assert "too few to show anything" in told(2)


def test_claims_and_metrics_are_those_that_the_analysis_knows():
    assert tuple(SCALES) == METRICS
    assert (*JUDGED, "cannot_discriminate") == CLAIMS


def test_a_baseline_that_the_command_line_leaves_out_is_the_first_condition(outputs):
    (plan,) = plans_of("study=quick", "indexer=h1d8,h2d8", "seq_len=64", f"output_dir={outputs}")
    assert plan.study.baseline == "h1d8"
    assert "h4d64" not in plan.study.question, "the yaml asks about a baseline that is not there"


def shortest(call, tries=2):
    """What a call returns, and its least processor time: other tests fill the memory, which is not its doing."""
    took = []
    for _ in range(tries):
        begin = time.process_time()
        result = call()
        took.append(time.process_time() - begin)
    return result, min(took)


@pytest.mark.slow
def test_a_thousand_judgements_are_planned_within_two_seconds(outputs):
    given = ["study=quick", "indexer=h1d8,h1d16,h2d8,h2d16,h4d64", "seed=range(0,42)", "seq_len=64,128"]

    def plan_it():
        (plan,) = plans_of(*given, f"output_dir={outputs}")
        return plan, jobs_of(plan, outputs)

    (plan, jobs), seconds = shortest(plan_it)
    assert len([job for job in jobs if job.kind == "judge"]) == 84
    assert len({run.hash for run in plan.runs}) == 1008
    assert seconds < 2


@pytest.mark.slow
def test_every_shipped_study_at_once_is_planned_and_shown_within_one_and_a_half_milliseconds_a_run(outputs, capsys):
    def plan_them():
        plans = plans_of("study=all", f"output_dir={outputs}")
        show_plan(plans)
        return plans

    plans, seconds = shortest(plan_them, tries=1)
    counts = re.search(r"jobs to do: (\d+) base, (\d+) cohort, (\d+) control, (\d+) joint", capsys.readouterr().out)
    jobs = sum(map(int, counts.groups()))
    runs = sum(len(plan.runs) for plan in plans)
    assert jobs > 1000
    assert runs > 10_000
    assert seconds < 0.0015 * runs


CONTRASTS = {"one": {"plus": ["h1d8"], "minus": ["h2d8"]}, "other": {"plus": ["h1d8"], "minus": ["h1d16"]}}


@pytest.mark.parametrize(
    ("hypothesis", "more", "comparisons", "decided"),
    [
        ({"claim": "some_condition_differs", "metric": "swap_val_loss"}, {}, 3, 6),
        ({"claim": "some_condition_differs", "metric": "swap_val_loss"}, {"judge": "both", "finalists": 1}, 3, 6),
        ({"claim": "some_condition_differs", "metric": "val_loss"}, {"judge": "both", "finalists": 1}, 1, 2),
        ({"claim": "no_quality_loss", "metric": "swap_val_loss"}, {}, 3, 3),
        ({"claim": "contrasts_differ", "metric": "swap_val_loss"}, {"contrasts": CONTRASTS}, 3, 6),
        ({"claim": "order_depends_on_length", "metric": "swap_val_loss"}, {}, 3, 12),
    ],
)
def test_the_plan_counts_what_the_correction_of_its_claim_counts(hypothesis, more, comparisons, decided):
    """Contrasts: two at two lengths, and their change; an order: six pairs at two lengths."""
    conditions = {"conditions": {"indexer": ["h1d8", "h2d8", "h1d16", "h2d16"]}, "judge": "swap"}
    study = read(
        "mine", conditions | {"hypothesis": hypothesis, "seq_len": [64, 128], "seed": [0]} | more, {}, {"indexer"}
    )
    assert (study.comparisons, study.decided) == (comparisons, decided)


def test_seeds_that_cannot_decide_the_claim_are_said_to_be_too_few_for_it():
    plan = {"conditions": {"indexer": [f"h{heads}d8" for heads in range(1, 21)]}, "seed": list(range(10))}
    study = read(
        "mine", plan | {"hypothesis": {"claim": "order_depends_on_length"}, "seq_len": [64, 128]}, {}, {"indexer"}
    )
    told = outlook(study)
    assert "19 comparisons a length, 380 over all lengths" in told and "too few for that claim, which takes 14" in told


def test_a_condition_that_repeats_what_is_common_shares_the_base_of_the_others():
    conditions = [{"name": "a", "indexer": "h1d8"}, {"name": "b", "indexer": "h2d8", "model.d_model": 32}]
    plan = {"conditions": conditions, "common": {"model.d_model": 32}, "seq_len": [64, 128]}
    study = read("x", plan | {"hypothesis": {"claim": "order_depends_on_length"}}, {}, {"indexer", "model"})
    assert study.decided == 2, "one pair at two lengths"


@pytest.mark.parametrize("name", ["quick", "all"])
def test_a_study_read_from_its_file_is_what_hydra_composes(name):
    calls = []
    composer = Composer(lambda overrides: calls.append(overrides) or load(overrides), [], private_keys())
    found, composed = composer.study(name), load([f"study={name}"]).plan
    assert found == OmegaConf.to_container(composed, resolve=False)
    assert [f"study={name}"] not in calls


def test_a_replicate_is_the_baseline_with_indexers_of_other_seeds_on_the_same_base(outputs):
    yaml = TWO | {"judge": "swap", "controls": ["replicate"]}
    plan = planned(yaml, *FAST, "seq_len=64", "seed=3,4", f"output_dir={outputs}")
    assert {(run.seed, run.spec.indexer_seed) for run in plan.runs if run.compared_as == "replicate"} == {
        (3, 1003), (4, 1004)
    }  # fmt: skip
    for again in (run for run in plan.runs if run.compared_as == "replicate"):
        (first,) = [run for run in plan.runs if run.label == plan.study.baseline and run.seed == again.seed]
        assert again.graph.base.hash == first.graph.base.hash
        assert again.graph.indexers.hash != first.graph.indexers.hash
        assert again.spec.condition == first.spec.condition


@pytest.mark.slow
def test_jobs_that_share_a_machine_are_warned_of_its_memory(outputs, capsys, monkeypatch):
    plans = plans_of("name=x", "indexer=h1d8,h2d8", *FAST, "seq_len=64", f"output_dir={outputs}")
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(total=2**40, available=2**20))
    for at_once, here in ((1, True), (2, False)):
        show_plan(plans, at_once, here)
        assert "jobs at once" not in capsys.readouterr().out
    show_plan(plans, 2)
    assert "warning 2 jobs at once need up to" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("launcher", "at_once"),
    [({"n_jobs": 3}, 3), ({"n_jobs": -1}, 8), ({"n_jobs": None}, 8), ({"cpus_per_task": 4}, 2), ({}, 8)],
)
def test_as_many_jobs_run_at_once_as_the_launcher_is_told_to_or_has_cores_for(launcher, at_once, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    hydra = {"runtime": {"choices": {"hydra/launcher": "other"}}, "launcher": launcher}
    assert workers(OmegaConf.create({"hydra": hydra})) == at_once
