"""Packages of the user's own are named by the user: no folder vouches for itself."""

import pytest

from dsa import load_run
from dsa.study.__main__ import main
from dsa.study.states import code_now

OWN = {"allow_targets": ["foreign"], "indexer._target_": "foreign.Indexer"}


def test_loading_asks_the_user_and_not_the_folder(run_folder, mark):
    folder = run_folder(OWN)
    with pytest.raises(ValueError, match=r"give allow_targets=\[foreign\] to train\.py, sweep\.py and load_run"):
        load_run(folder)
    assert not mark.exists()
    assert load_run(folder, allow_targets=["foreign"]).vocab_size == 192


@pytest.mark.parametrize(("command", "code"), [("time", 2), ("conclude", 1)])
def test_a_command_that_loads_runs_says_how_a_package_is_admitted(command, code, run_folder, mark, capsys, monkeypatch):
    monkeypatch.setattr("dsa.study.timing.in_fresh_process", lambda call, *arguments: call(*arguments))
    study = run_folder(OWN).parent
    assert main([command, str(study)]) == code
    said = capsys.readouterr().err
    assert "indexer._target_ = foreign.Indexer" in said
    assert "--allow-target foreign to python -m dsa.study" in said
    assert said.count("\n") == 1
    assert not mark.exists()


@pytest.mark.slow
def test_a_package_named_on_the_command_line_is_admitted(run_folder, mark, monkeypatch):
    monkeypatch.setattr("dsa.study.timing.ROUNDS", 1)
    study = run_folder(OWN | {"ops": "blocked"}).parent
    assert main(["time", str(study), "--allow-target", "foreign"]) == 0
    assert mark.exists()
    assert (study / "timing.json").exists()


def test_status_imports_no_package_that_only_the_folder_names(run_folder, mark, capsys):
    study = run_folder({"allow_targets": ["foreign.inner"]}, roots=[["foreign.inner.Indexer"]]).parent
    assert main(["status", str(study)]) == 0
    assert "stale" in capsys.readouterr().out
    assert not mark.exists()


def test_status_reads_the_source_of_a_package_without_importing_it(run_folder, mark, capsys):
    roots = [["foreign.inner.Indexer"], ["foreign.Indexer"]]
    study = run_folder({"allow_targets": ["foreign"]}, code=code_now(roots), roots=roots).parent
    for admitted in ([], ["--allow-target", "foreign"]):
        assert main(["status", str(study), *admitted]) == 0
        said = capsys.readouterr().out
        assert "done" in said and "stale" not in said
    assert not mark.exists()
