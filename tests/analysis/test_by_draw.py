"""Several draws of indexers on each base: shares of the variance, and the command that prints them."""

import json

import numpy as np
import pandas as pd
import pytest

from dsa.analysis.__main__ import main
from dsa.analysis.statistics.by_draw import by_draw

STUDIES = 600
METRIC = "swap_val_loss"


def made_up(rng, bases, draws, of_bases):
    """Measures of draws whose standard deviation is 1, on bases with effects of their own."""
    return of_bases * rng.standard_normal((bases, 1)) + rng.standard_normal((bases, draws))


@pytest.mark.parametrize("of_bases", [0.0, 0.7, 2.0])
def test_the_share_between_draws_lies_in_its_interval_as_often_as_it_says(of_bases):
    """95 % of 600 made-up studies, within three standard errors; the true share may be 1, the end of its range."""
    rng, true = np.random.default_rng(0), 1 / (1 + of_bases**2)
    found = [by_draw(made_up(rng, 10, 3, of_bases)) for _ in range(STUDIES)]
    held = sum(one.interval[0] <= true <= one.interval[1] for one in found)
    assert 0.923 < held / STUDIES < (0.977 if of_bases else 1.0)


def test_standard_deviations_are_those_of_what_was_made_up():
    one = by_draw(made_up(np.random.default_rng(1), 2000, 3, 2.0))
    assert (one.between, one.within, one.share) == pytest.approx((2.0, 1.0, 0.2), rel=0.05)


def test_where_nothing_varies_in_a_base_or_at_all_nothing_is_made_up():
    apart = by_draw(np.array([[0.0, 0.0], [1.0, 1.0]]))
    assert (apart.within, apart.share, apart.interval) == (0.0, 0.0, (0.0, 0.0))
    assert by_draw(np.ones((3, 2))).share is None
    with pytest.raises(ValueError, match="1 x 3 runs"):
        by_draw(np.ones((1, 3)))


def test_runs_of_nothing_are_no_draws():
    from dsa.analysis.inputs.scale import SCALES
    from dsa.analysis.judgement.draws import by_base

    columns = {"seed": [], "indexer_seed": [], METRIC: [], "base_val_loss": []}
    assert by_base(pd.DataFrame(columns), SCALES[METRIC]).shape == (0, 0)


def study(folder, lost, **more):
    """A study of one condition in a folder.

    Args:
        lost: over dense attention, by base and draw; None for a run that is missing.
    """
    runs = []
    for base, draws in enumerate(lost):
        for draw, over in enumerate(draws):
            run_id = f"h1d8-{base}-{draw}"
            own = {"label": "h1d8", "role": "condition", "context": "", "seq_len": 64, "seed": base, "run_id": run_id}
            runs.append(own)
            if over is None:
                continue
            result = {"schema": 2, "run_id": run_id, "status": "finished", "seed": base, "indexer_seed": draw,
                      METRIC: base + over, "base_val_loss": base}  # fmt: skip
            (folder / run_id).mkdir(parents=True)
            (folder / run_id / "result.json").write_text(json.dumps(result))
    plan = {"name": "made-up", "metric": METRIC, "baseline": "h1d8", "conditions": {"h1d8": {"indexer": "h1d8"}}}
    (folder / "study.json").write_text(json.dumps(plan | {"runs": runs} | more))


def test_the_command_prints_a_row_a_condition_and_counts_the_bases_that_keep_to_the_margin(tmp_path, capsys):
    folder, told = tmp_path / "made-up", tmp_path / "told.json"
    study(folder, [[0.0, 0.01], [0.0, 1.0], [1.0, 2.0], [2.0, 2.0], [0.0, None]], margin={METRIC: 0.05})
    assert main(["draws", str(folder), "--json", str(told)]) == 0
    assert "h1d8" in capsys.readouterr().out
    (one,) = json.loads(told.read_text())
    assert one["hold"] == [1, 1, 2], "the base that lacks a draw is left out"
    assert (one["found"]["bases"], one["found"]["draws"]) == (4, 2)
    assert one["found"]["mean"] == pytest.approx(8.01 / 8), "over dense attention on the same base"


def test_a_study_of_single_draws_is_told_so(tmp_path, capsys):
    study(tmp_path / "made-up", [[0.0], [1.0]])
    assert main(["draws", str(tmp_path / "made-up")]) == 2
    assert capsys.readouterr().err.startswith("error: indexer_seed: no condition here drew its indexers twice")
