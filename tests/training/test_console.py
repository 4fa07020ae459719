"""What a run shows on the terminal before and after it."""

import logging
import warnings
from itertools import pairwise
from pathlib import Path

import pytest
from conftest import QUIET, SMALL
from rich.console import Console

from dsa import compose, train
from dsa.artifacts.results import RunResult
from dsa.training import console as module
from dsa.training import execute
from dsa.training.console import show_config, show_result


@pytest.fixture
def shown(monkeypatch):
    """What is shown, by the function that shows it."""
    out = Console(record=True, width=200)
    monkeypatch.setattr(module, "console", out)

    def show(function, *arguments):
        function(*arguments)
        return out.export_text()

    return show


@pytest.mark.parametrize(
    ("overrides", "stages"),
    [
        (["steps=75"], {"dense": "steps=50", "warmup": "steps=10", "sparse": "steps=15"}),
        (["judge=swap"], {"dense": "steps=500", "warmup": "steps=100"}),
        (["recipe=dense"], {"dense": "steps=500"}),
        (["selector=window"], {"dense": "steps=500", "sparse": "steps=150"}),
    ],
)
def test_the_tree_shows_the_steps_of_the_stages_that_will_run(overrides, stages, shown):
    text = shown(show_config, compose(overrides))
    lines = [line.strip("│├└─ ") for line in text.splitlines()]
    found = {name: values for name, values in pairwise(lines) if name in ("dense", "warmup", "sparse")}
    assert {name: values.split()[0] for name, values in found.items()} == stages
    assert "steps=null" not in text and "  steps=" not in lines[-1]


def test_names_that_look_like_markup_are_shown_as_they_are(shown):
    spec = compose(["output_dir='x[/]'"])
    assert "output_dir=x[/]" in shown(show_config, spec)
    result = RunResult("r", "finished", "runs", {"indexer": "[/]"}, "tiny", "[red]", "continue", 64, 0, folder="x[/]")
    text = shown(show_result, result, ["look: [/]"])
    assert "[/]   tiny · [red] · L 64" in text and "look: [/]" in text and "x[/]" in text


@pytest.mark.slow
def test_the_log_of_a_good_run_holds_all_that_it_said(outputs, capsys, monkeypatch):
    monkeypatch.setattr(execute, "rehearse", lambda *_: warnings.warn("mind this", stacklevel=1))
    spec = compose([*SMALL, *QUIET, "recipe=dense", "steps=4", f"output_dir={outputs}"])
    with pytest.warns(UserWarning, match="mind this"):
        folder = Path(train(spec).folder)
    log = (folder / "run.log").read_text()
    shown = capsys.readouterr().out
    for words in ("configuration", "steps: dense 4", "validation loss", folder.name):
        assert words in shown and words in log
    assert "mind this" in log
    train(spec)
    assert (folder / "run.log").read_text() == log, "shown again, and not done again"


def test_a_runs_log_hears_what_a_notebook_shows(monkeypatch):
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    kept = []
    listener = logging.Handler()
    listener.emit = lambda record: kept.append(record.getMessage())
    module.said.addHandler(listener)
    try:
        module.say("[bold]a line[/]")
    finally:
        module.said.removeHandler(listener)
    assert kept == ["a line"]
