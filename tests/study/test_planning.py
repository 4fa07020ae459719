"""A study's plan: its runs, what they need, and which mistakes are told before anything is trained."""

import re
import time
from types import SimpleNamespace

import pytest
import torch
from conftest import options

from dsa import compose
from dsa.analysis.inputs.scale import SCALES
from dsa.analysis.judgement.hypothesis import CLAIMS as JUDGED
from dsa.artifacts.names import CLAIMS, METRICS
from dsa.backbones import Pass
from dsa.build import build_data, build_model
from dsa.graph import graph_of, run_id
from dsa.judging.speed import peak_megabytes
from dsa.study.applicable import memory_needed
from dsa.study.jobs import IN_ORDER, ToDo
from dsa.study.lists import as_list
from dsa.study.outlook import outlook
from dsa.study.question import expand
from dsa.study.states import Results, Shelf
from dsa.training.objective import language_model_loss
from study.studies import TINY, load, planned, plans_of

FAST = ["data=mqar", "model=mqar", "pattern=causal", "selector.k=8", "exploratory=true"]
INDEXERS = [f"h{heads}d{dim}" for heads in (1, 2, 3, 4) for dim in (8, 16, 32, 64)][:14]
TWO = {"conditions": {"indexer": ["h1d8", "h2d8"]}}


def labels(block, groups=("indexer", "pattern", "precision")):
    return [label for label, _ in expand(block, set(groups))]


def jobs_of(plan, outputs):
    todo = ToDo(Shelf(outputs, "rerun"), Results("rerun"))
    return [job for kind in IN_ORDER for job in todo.jobs(kind, plan.applicable)]


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
        ("val", {"base": 4, "cohort": 4, "control": 4, "joint": 20}),
        ("both", {"base": 4, "cohort": 4, "control": 4, "joint": 20, "judge": 4}),
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
    assert len(carried) == len(set(carried)) == len(plan.runs) == (48 if judge == "both" else 24)


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
    plan = planned(yaml, *FAST, *given, "seq_len=64", "indexer=h1d8", f"output_dir={outputs}")
    found = {run.label: run.spec.index_every for run in plan.runs}
    assert found == {"index_every1": 1, "index_every2": 2, "index_every0.1": (0, 1)}


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
    assert len([run for run in plan.runs if run.role == "control"]) == 8, (
        "a control has no indexer, and runs once a seed"
    )
    plan = planned(TWO | {"judge": "swap"}, *given)
    assert {(run.seed, run.spec.indexer_seed) for run in plan.runs} == {(3, 3), (4, 4)}


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
    spec = compose([*common, *overrides, "seed=5", "name=x", f"judge={judge}"])
    run = next(run for run in plan.runs if run.role == "condition" and run.seed == 5)
    assert run.spec.content == spec.content
    assert run.spec == spec
    graph = graph_of(spec, build_data(spec).fingerprint)
    assert (run.hash, run.run_id) == (graph.hash, run_id(spec, graph))


def test_shares_of_the_length_are_worked_out_in_the_plan(outputs):
    (plan,) = plans_of("study=quick", "seed=0", f"output_dir={outputs}")
    budgets = {(run.seq_len, run.spec.selector.node["k"]) for run in plan.runs if run.role == "condition"}
    assert budgets == {(64, 8), (128, 8)}


def test_a_budget_that_reaches_the_length_is_not_applicable_and_says_why(outputs):
    (plan,) = plans_of("name=x", "pattern=causal,local_global_64_128", "seq_len=64,512", "data=mqar", "model=mqar",
                       "exploratory=true", f"output_dir={outputs}")  # fmt: skip
    reasons = {(run.label, run.seq_len): run.reason for run in plan.runs if run.role == "condition"}
    assert "so attention is dense" in reasons["local_global_64_128", 64]
    assert reasons["local_global_64_128", 512] is None


def test_a_budget_without_room_for_a_block_is_not_applicable_and_says_why(outputs):
    (plan,) = plans_of("name=x", "indexer=block_mean", "indexer.unit=1,16,32", "selector.k=48", "pattern=causal",
                       "seq_len=128", "data=mqar", "model=mqar", "exploratory=true",
                       f"output_dir={outputs}")  # fmt: skip
    reasons = [run.reason for run in plan.runs if run.role == "condition"]
    no_room = "up to 31 keys are kept anyway: a budget of 48 has no room for a block of 32 tokens"
    assert [reason for reason in reasons if reason] == [no_room] and len(reasons) == 3


def test_patterns_with_gaps_are_not_applicable_to_blocks_and_the_plan_says_why(outputs):
    (plan,) = plans_of("name=x", "indexer=qwen4_qsa,h1d8", "pattern=causal,strided,multi_head", "seq_len=512",
                       "data=mqar", "model=mqar", "exploratory=true", f"output_dir={outputs}")  # fmt: skip
    reasons = {run.label: run.reason for run in plan.runs if run.role == "condition" and run.reason}
    assert set(reasons) == {"qwen4_qsa-strided", "qwen4_qsa-multi_head"}
    assert all("units need contiguous zones" in reason for reason in reasons.values())


def test_too_few_seeds_are_refused_unless_exploratory(outputs):
    given = ["study=optimal_indexer_config", "seq_len=64", f"output_dir={outputs}"]
    with pytest.raises(ValueError, match="Give 10 seeds"):
        plans_of(*given, "seed=range(0,8)", judge="swap")
    with pytest.raises(ValueError, match=r"4 comparisons .* Give 8 seeds"):
        plans_of(*given, "seed=range(0,7)")
    (plan,) = plans_of(*given, "seed=range(0,2)", exploratory=True)
    assert plan.study.exploratory


def test_the_plan_says_which_effect_its_seeds_see_and_from_how_many_on_no_loss_can_be_shown():
    def told(seeds: int) -> str:
        study = {"seed": list(range(seeds)), "conditions": {"indexer": INDEXERS}}
        return outlook(planned(study, *FAST, "seq_len=64").study)

    assert re.search(r"an effect of (1\.9|2\.0)\d standard", told(10)) and "can be shown from 25 seeds on" in told(10)
    assert "can be shown too" in told(25)
    assert "too few to show anything" in told(2)


@pytest.mark.parametrize("study", [s for s in options("study") if s not in ("research", "all", "pretrained")])
def test_every_shipped_study_can_be_planned(study, outputs):
    seeds = "seed=0" if study != "quick" else "seed=0,1,2"
    (plan,) = plans_of(f"study={study}", seeds, "seq_len=512", f"output_dir={outputs}", exploratory=True)
    assert {run.role for run in plan.applicable} == {"control", "condition"}
    assert plan.study.baseline in plan.study.conditions


def test_the_study_of_a_pretrained_model_can_be_planned_on_any_model(outputs, tmp_path):
    pytest.importorskip("transformers", reason="the extra dsa[pretrained] is not installed")
    from backbones.tiny_models import CONFIGS, saved

    folder = saved(tmp_path / "tiny", CONFIGS["llama"](), tokenizer=True)
    text = tmp_path / "text.txt"
    text.write_text("def return import self class for in if else\n" * 400)
    (plan,) = plans_of(
        "study=pretrained", "model=pretrained", f"model.path={folder}", "data=text_model", f"data.path={text}",
        f"cache_dir={tmp_path}", "seed=0", "seq_len=64", f"output_dir={outputs}", exploratory=True,
    )  # fmt: skip
    assert len(plan.study.conditions) == 8 and {run.spec.given for run in plan.applicable} == {True}
    assert {run.spec.recipe.dense_steps for run in plan.applicable} == {0}


def test_the_combinations_are_twenty():
    assert len(load(["study=optimization_combinations"]).plan.conditions) == 20


def test_claims_and_metrics_are_those_that_the_analysis_knows():
    assert tuple(SCALES) == METRICS
    assert (*JUDGED, "cannot_discriminate") == CLAIMS


@pytest.mark.parametrize(
    ("yaml", "words"),
    [
        ({"colour": "red"}, "unknown key colour"),
        ({"judge": "swop"}, "judge = swop: give swap, val or both."),
        ({"finalists": 3}, "finalists = 3: chosen by swap and then trained jointly; give judge: both with it."),
        ({"judge": "both", "finalists": 0}, "finalists = 0: give a whole number from 1"),
        ({"baseline": "h9d9"}, "baseline = h9d9: no condition of study x; it has h1d8, h2d8."),
        ({"baseline": {"indexer": "h9d9"}}, "no condition of study x"),
        ({"seed": "range(5,5)"}, "seed = []: give whole numbers"),
        ({"seed": []}, "seed = []: give whole numbers"),
        ({"seed": [0, -1]}, "seed = [0, -1]: give whole numbers"),
        ({"indexer_seed": "a"}, "indexer_seed = ['a']: give whole numbers"),
        ({"margin": {"val_loss": -1}}, "margin.val_loss = -1: give a number above 0."),
        ({"margin": {"val_loss": "abc"}}, "margin.val_loss = abc: give a number above 0."),
        ({"margin": {"val_loss": float("nan")}}, "margin.val_loss = nan: give a number above 0."),
        ({"margin": {"loss": 0.01}}, "margin = loss: give val_loss, swap_val_loss, val_accuracy, swap_val_accuracy, "),
        ({"margin": 0.01}, "margin = 0.01: give key: value."),
        ({"hypothesis": {"claim": "it_works"}}, "hypothesis.claim = it_works: give some_condition_differs,"),
        ({"hypothesis": {"metric": "loss"}}, "hypothesis.metric = loss: give val_loss,"),
        ({"judge": "swap", "hypothesis": {"metric": "val_loss"}}, "judge = swap does none; give swap_val_loss"),
        ({"controls": ["nothing"]}, "controls: nothing is none of dense"),
        ({"conditions": [{"indexer": "h1d8"}, {"indexer": "h1d8"}]}, "two of them are labelled h1d8"),
        ({"conditions": {"indexer": []}}, "conditions: indexer lists nothing."),
        ({"judge": "swap", "common": {"recipe": "scratch"}}, "judge = swap: recipe.dense.steps = 0"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_yaml_is_named(yaml, words, outputs):
    with pytest.raises(ValueError) as error:
        planned(TWO | yaml, *FAST, "seq_len=64", f"output_dir={outputs}")
    assert words in str(error.value)
    assert not outputs.exists()


@pytest.mark.parametrize("seeds", ["seed=range(5,5)", "seed=[]"])
def test_no_seed_on_the_command_line_is_no_wish_for_those_of_the_yaml(seeds, outputs):
    with pytest.raises(ValueError, match="seed = "):
        planned(TWO, *FAST, seeds, f"output_dir={outputs}")


def test_a_baseline_that_the_command_line_leaves_out_is_the_first_condition(outputs):
    (plan,) = plans_of("study=quick", "indexer=h1d8,h2d8", "seq_len=64", f"output_dir={outputs}")
    assert plan.study.baseline == "h1d8"


@pytest.mark.parametrize(("one", "two"), [("me", "me"), ("me", "you")])
def test_a_union_that_leads_back_to_itself_is_refused(one, two, outputs):
    yamls = {"me": {"union": [two]}, "you": {"union": ["me"]}}

    def with_unions(overrides):
        names = [override.removeprefix("study=") for override in overrides if override.startswith("study=")]
        cfg = load([override for override in overrides if not override.startswith("study=")])
        if names:
            cfg.plan = yamls[names[0]]
            cfg.hydra.runtime.choices.study = names[0]
        return cfg

    from dsa.study.options import Options
    from dsa.study.sweep import plan_all

    with pytest.raises(ValueError, match="is part of itself"):
        plan_all(with_unions([f"study={one}"]), [f"study={one}"], with_unions, Options())


def test_models_that_a_machine_has_no_memory_for_are_not_applicable(outputs, monkeypatch):
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(total=2 * 2**30))
    (plan,) = plans_of("study=model_scaling", "seed=0", f"output_dir={outputs}", exploratory=True)
    reasons = {run.label: run.reason for run in plan.runs if run.role == "condition"}
    assert reasons["d256-h2d32"] is None
    assert reasons["d512-h2d32"] == "training needs about 3 GB, this machine has 2"
    assert "this machine has 2" in reasons["d1024-h4d64"]


@pytest.mark.slow
def test_the_memory_that_training_needs_is_foreseen_within_a_factor_of_two():
    spec = compose([*FAST[:2], "model.d_model=128", "seq_len=256", "indexer=h2d32", "dtype=fp32", "ops=blocked"])
    model = build_model(spec, 256)
    optimizer = spec.optimizer.make()([{"params": list(model.parameters()), "lr": 1e-3}])
    tokens = torch.zeros(spec.data.node["batch_size"], spec.seq_len, dtype=torch.long)

    def step():
        logits, losses = model.run(tokens, Pass(teach=True))
        (language_model_loss(logits, tokens) + losses["indexer"]).backward()
        optimizer.step()

    measured = peak_megabytes(step, torch.device("cpu")) + sum(p.numel() for p in model.parameters()) * 4 / 2**20
    assert 0.5 < memory_needed(spec) / 2**20 / measured < 2


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
def test_every_shipped_study_at_once_is_planned_within_two_milliseconds_a_run(outputs):
    def plan_them():
        plans = plans_of("study=all", f"output_dir={outputs}")
        return plans, sum(len(jobs_of(plan, outputs)) for plan in plans)

    (plans, jobs), seconds = shortest(plan_them, tries=1)
    runs = sum(len(plan.runs) for plan in plans)
    assert jobs > 1000
    assert runs > 10_000
    assert seconds < 0.002 * runs
