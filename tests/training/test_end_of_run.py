"""A run killed at its very end, or amid an accumulation, ends as if nothing had happened."""

import csv
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from conftest import QUIET, SMALL

from dsa import compose, load_run, train
from dsa.artifacts.files import RESULT
from dsa.artifacts.results import RunResult
from dsa.artifacts.store import PLACES, Store
from dsa.training import work as module
from dsa.training.module import Training

pytestmark = pytest.mark.slow
RUN = [*SMALL, *QUIET, "steps=9", "dtype=fp32", "pattern=causal", "selector.k=8"]


class Killed(SystemExit):
    """Stands for a kill: nothing is written any more, as after any interruption."""


def killed(*_args, **_named):
    raise Killed


def killed_after(call):
    def both(*args, **named):
        call(*args, **named)
        raise Killed

    return both


def record(folder: Path) -> list[dict[str, str]]:
    path = folder / "metrics.csv"  # not there for a run without a stage of its own
    return list(csv.DictReader(path.read_text().splitlines())) if path.exists() else []


def lasting(folder: Path) -> dict[str, object]:
    """A result less what is measured anew at the end of a run."""
    values = json.loads((folder / RESULT).read_text())
    again = ("folder", "memory", "provenance", "warnings")
    times = {name: values["time"].get(name) for name in ("step_ms", "tokens_per_s", "dense_step_ms")}
    return {name: value for name, value in values.items() if name not in again} | {"time": times}


def killed_in(settings, target, name, instead):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(target, name, instead)
        with pytest.raises(Killed):
            train(compose(settings))


@pytest.fixture(scope="module", params=[[], ["selector=window", "selector.k=8", "recipe.sparse.steps=0"]])
def trained(request, tmp_path_factory):
    """Settings, and a run of them whose stages, if it has any, are all trained and which was then killed."""
    outputs, settings = tmp_path_factory.mktemp("trained"), [*RUN, *request.param]
    killed_in([*settings, f"output_dir={outputs}"], module, "assemble", killed)
    return settings, outputs


def no_result(source, target, rename=os.replace):
    return killed() if Path(target).name == RESULT else rename(source, target)


STEPS = [
    (module, "assemble", killed),
    (module, "assemble", killed_after(module.assemble)),
    (RunResult, "write", killed),
    (os, "replace", no_result),
    (RunResult, "write", killed_after(RunResult.write)),
]


@pytest.fixture(scope="module")
def expected(trained, tmp_path_factory):
    """The folder of the run as it ends where nobody kills it."""
    settings, before = trained
    outputs = unjudged(before, tmp_path_factory.mktemp("expected") / "outputs")
    return Path(train(compose([*settings, f"output_dir={outputs}"])).folder)


def unjudged(before, outputs):
    """A copy of what is trained, without the judgements that were made before the kill."""
    shutil.copytree(before, outputs)
    shutil.rmtree(outputs / PLACES["judgement"])
    return outputs


@pytest.mark.parametrize("step", range(len(STEPS)))
def test_killed_between_any_two_steps_of_its_end_a_run_ends_with_the_same_result(step, trained, expected, tmp_path):
    settings, before = trained
    overrides = [*settings, f"output_dir={unjudged(before, tmp_path / 'outputs')}"]
    killed_in(overrides, *STEPS[step])
    result = train(compose(overrides))
    assert record(Path(result.folder)) == record(expected), "no row is cut, none is trained again"
    assert lasting(Path(result.folder)) == lasting(expected)
    states = [load_run(folder).state_dict() for folder in (result.folder, expected)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[1])


@pytest.mark.parametrize("instead", [killed, killed_after(Store.keep_judgement)])
def test_killed_while_it_is_judged_a_run_ends_with_the_same_numbers(instead, trained, expected, tmp_path):
    settings, before = trained
    overrides = [*settings, f"output_dir={unjudged(before, tmp_path / 'outputs')}"]
    killed_in(overrides, Store, "keep_judgement", instead)
    result = train(compose(overrides))
    assert lasting(Path(result.folder)) == lasting(expected)


def test_a_result_that_is_lost_is_put_together_anew_and_nothing_trained(trained, tmp_path):
    settings, before = trained
    shutil.copytree(before, tmp_path / "outputs")
    overrides = [*settings, f"output_dir={tmp_path / 'outputs'}"]
    folder = Path(train(compose(overrides)).folder)
    expected, rows = lasting(folder), record(folder)
    (folder / RESULT).unlink()
    train(compose(overrides))
    assert (lasting(folder), record(folder)) == (expected, rows)


def test_two_kills_amid_an_accumulation_lose_no_gradient(tmp_path):
    settings = [*SMALL, *QUIET, "recipe=dense", "steps=8", "dtype=fp32", "trainer.accumulate=4"]
    settings += ["callbacks.checkpoint_every=5", "callbacks.val_every=100"]
    expected = train(compose([*settings, f"output_dir={tmp_path / 'whole'}"]))
    begin = Training.on_train_batch_start
    for kill in (4 * 6 + 1, 4 * 5 + 2):  # micro-batches: of the seventh step, then of the sixth, just resumed

        def dying(self, batch, batch_idx, kill=kill):
            if batch_idx == kill:
                raise Killed
            begin(self, batch, batch_idx)

        killed_in([*settings, f"output_dir={tmp_path / 'killed'}"], Training, "on_train_batch_start", dying)
    result = train(compose([*settings, f"output_dir={tmp_path / 'killed'}"]))
    losses = [
        [row["train/loss"] for row in record(Path(run.folder)) if row["kind"] == "train"] for run in (result, expected)
    ]
    assert losses[0] == losses[1]
    states = [load_run(run.folder).state_dict() for run in (result, expected)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[1])
