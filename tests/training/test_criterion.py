"""A base is trained until its task is solved: what it reached and when is in the result, steps have a limit."""

import json
import math

import pandas as pd
import pytest

from dsa import compose
from dsa.training import criterion
from dsa.training.criterion import EVERY, TAIL, Criterion
from dsa.training.execute import train
from training.whole_runs import RUN, artifact


def course(accuracies, limit, wanted=0.98):
    """Looks after every step until it says that training is over; the criterion and the last step."""
    told = Criterion(wanted, limit)
    asked = []

    def accuracy_of(model, data):
        asked.append(step)
        return accuracies(step)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(criterion, "accuracy_of", accuracy_of)
        step = 0
        while step < told.end:
            step += 1
            told.look(step, None, None)
    return told, step, asked


def test_it_ends_a_quarter_of_its_steps_after_the_accuracy_was_reached():
    told, end, asked = course(lambda step: 0.99 if step >= 60 else 0.5, limit=1000)
    assert told.reached == 75, "the first look after it was there"
    assert asked == [25, 50, 75], f"every {EVERY} steps, and no more once it is reached"
    assert end == math.ceil(75 * (1 + TAIL)) == 94


@pytest.mark.parametrize("limit", [10, 100, 101])
def test_a_task_that_is_never_solved_takes_all_steps_and_no_more(limit):
    told, end, _ = course(lambda step: 0.5, limit)
    assert end == limit and told.reached is None
    assert told.falling == told.last_fall, "the rate falls all the same"


def test_an_accuracy_that_is_reached_when_the_rate_falls_already_is_not_said_to_be_reached():
    told, _, _ = course(lambda step: 0.99 if step >= 90 else 0.5, limit=100)
    assert told.falling == 80 and told.reached is None


def test_the_rate_rises_stays_and_falls_to_its_end():
    before, (told, end, _) = Criterion(0.98, 1000), course(lambda step: 0.99 if step >= 100 else 0.5, limit=1000)
    rates = [before.lr_share(step, 0.01, 0.1) for step in range(100)]
    assert rates[0] == 0.1 and rates[:10] == sorted(rates[:10]) and set(rates[9:]) == {1.0}
    falling = [told.lr_share(step, 0.01, 0.1) for step in range(100, end + 1)]
    assert falling[0] == 1.0 and falling == sorted(falling, reverse=True) and falling[-1] == pytest.approx(0.1)


def run(tmp_path, until, steps):
    given = [*RUN, f"output_dir={tmp_path}", "judge=swap", "recipe.warmup.steps=2", f"recipe.dense.steps={steps}"]
    return train(compose([*given, f"recipe.dense.until={until}"]))


@pytest.mark.slow
def test_a_run_says_how_long_its_base_took_and_what_it_reached(tmp_path):
    result = run(tmp_path, until=1e-6, steps=200)
    told = json.loads((tmp_path / "runs" / result.run_id / "result.json").read_text())["base_training"]
    assert (told["steps"], told["solved_at"], told["until"]) == (32, 25, 1e-6)
    assert told["accuracy"] >= 1e-6
    rows = pd.read_csv(artifact(result, "base") / "metrics.csv").query("kind == 'train'")
    assert rows["stage_step"].max() in (31, 32), "no step beyond the end"
    assert not any("was not solved" in warning for warning in result.warnings)


@pytest.mark.slow
def test_a_run_warns_that_its_base_was_not_solved(tmp_path):
    result = run(tmp_path, until=1.0, steps=12)
    assert result.base_training["steps"] == 12 and result.base_training["solved_at"] is None
    assert result.base_training["accuracy"] < 1.0
    (warning,) = [text for text in result.warnings if "was not solved" in text]
    assert "after all 12 steps" in warning and "below recipe.dense.until = 1" in warning
