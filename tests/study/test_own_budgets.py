"""A study with controls at each budget, from its yaml to its report, in tiny form."""

import pytest

from dsa.analysis.judgement.analysis import analyse_folder
from dsa.analysis.output.figures import pairs
from study.studies import TINY, drive, plans_of

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
