"""Studies with controls at each budget: what is planned, and one from its yaml to its report, in tiny form."""

import pytest

from dsa.analysis.judgement.analysis import analyse_folder
from dsa.analysis.output.figures import pairs
from study.studies import FAST, TINY, TWO, drive, jobs_of, planned, plans_of

SHORT = [setting for setting in TINY if not setting.startswith("selector.k=")]
RATIOS = "selector.k=${pairs:1/2},${pairs:2}"


@pytest.mark.slow
def test_the_study_of_keys_per_pair_runs_and_draws_a_line_for_each_indexer_and_control(outputs):
    given = ["seq_len=64", "seed=0", "indexer=h1d8,h2d8", RATIOS, *SHORT, "data=mqar", f"output_dir={outputs}"]
    plans = plans_of("study=keys_per_pair", *given, exploratory=True)
    assert drive(plans, outputs).status == 0
    done = analyse_folder(outputs / "keys_per_pair")
    assert not done.prepared.gaps
    assert {len(done.prepared.rows(label, 64)) for label in done.prepared.labels(64)} == {1}
    dense = {c: done.prepared.control("dense", c) for c in ("k1/2pairs", "k2pairs")}
    assert dense == {c: f"dense-{c}" for c in dense}, "dense attention stands beside each budget"
    (panel,) = pairs.chart(done).panels
    kinds = {"oracle", "random", "window", "sink_window", "static", "replicate"}
    assert {line.label for line in panel.lines} == {"h1d8", "h2d8", *kinds}
    assert {line.x for line in panel.lines} == {(0.5, 2.0)}


@pytest.mark.parametrize("typed", [False, True])
def test_each_budget_has_controls_and_a_baseline_of_its_own_on_one_base(typed, outputs):
    ratios = ["${pairs:1/2}", "${pairs:2}"]
    yaml = {
        "judge": "swap", "budget": "own", "baseline": {"indexer": "h2d8"},
        "conditions": {"indexer": ["h1d8", "h2d8"], "selector.k": ["${pairs:1}", "${pairs:4}"] if typed else ratios},
        "controls": ["dense", "oracle", "static", "replicate"],
    }  # fmt: skip
    given = [f"selector.k={','.join(ratios)}"] if typed else []
    fixed = ["data=mqar", "model=mqar", "pattern=causal", "exploratory=true", "recipe=recall", "seq_len=64"]
    plan = planned(yaml, *fixed, *given, f"output_dir={outputs}")
    found = {(run.compared_as, run.context, run.spec.selector.node.get("k")) for run in plan.runs}
    controls = ("oracle", "static", "replicate", "condition")
    assert found == {(kind, context, k) for kind in controls for context, k in (("k1/2pairs", 2), ("k2pairs", 8))} | {
        ("dense", context, None) for context in ("k1/2pairs", "k2pairs")
    }
    again = {run.label: run.spec.indexer.option for run in plan.runs if run.compared_as == "replicate"}
    assert again == {"replicate-k1/2pairs": "h2d8", "replicate-k2pairs": "h2d8"}
    assert len({run.graph.base.hash for run in plan.runs}) == 1
    (cohort,) = [job for job in jobs_of(plan, outputs) if job.kind == "cohort"]
    assert len(cohort.makes) == 4, "an indexer is trained once for all budgets"


def test_a_condition_without_a_budget_has_no_controls_at_its_own(outputs):
    with pytest.raises(
        ValueError, match=r"budget = own: each condition gives a selector.k, for its controls; h1d8 gives"
    ):
        planned(TWO | {"judge": "swap", "budget": "own"}, *FAST, "seq_len=64", f"output_dir={outputs}")
