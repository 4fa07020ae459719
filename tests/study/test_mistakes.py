"""What is typed wrong ends in one sentence that names the setting, without a traceback."""

import sys

import pytest

from dsa.study.launch import run_sweep
from study.studies import ROOT, launched, load


def told(capsys, *arguments):
    """Exit status and what a sweep with these arguments says on its error stream."""
    single = [a for a in arguments if "," not in a and "range(" not in a]
    with pytest.raises(SystemExit) as end:
        run_sweep(load(single), list(arguments), load, object())
    return end.value.code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["study=quick", "seed=a,b"], "seed = ['a', 'b']: give whole numbers"),
        (["study=quick", "seq_len=abc"], "seq_len = ['abc']: give whole numbers"),
        (["study=quick", "seed=0,1,2", "exploratory=false"], "Give 7 seeds, or exploratory=true"),
        (["study=quick", "indexer=h4d64,nope"], "indexer = nope: no such option. Give one of h1d1, "),
        (
            ["study=quick", "indexer.colour=1,2"],
            "indexer.colour = 1: no such setting of indexer=h4d64. There are: d_model, dim, ",
        ),
        (["study=quick", "indexer.dim=8,seven"], "condition h4d64-seven, indexer=h4d64~: "),
        (["name=x", "data=mqar", "model=mqar", "seq_len=64", "pattern=local_global_64_128"], "so attention is dense"),
        (["study=quick", "on_error=pause"], "on_error = pause: give continue or stop"),
        (["study=quick", "timeout_minutes=0"], "timeout_minutes = 0: give more than 0"),
        (["study=quick", "wait=false"], "wait = false: only a scheduler goes on alone"),
        (["study=quick", "trainer=ddp"], "trainer.devices = 2: this launcher gives a run one process"),
        ([], "give study=quick"),
    ],
)
def test_a_mistake_is_named(arguments, named, capsys, outputs):
    status, text = told(capsys, *arguments, f"output_dir={outputs}")
    assert status == 2
    assert named in text
    assert text.startswith("error: ")
    assert text.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["sweep.py", "study=quik"], "study = quik: no such option. Give one of all, "),
        (["sweep.py", "study=quick", "seed=range(0,x)"], "seed=range(0,x): cannot be read (TypeError"),
        (["sweep.py", "study=quick", "stepz=3"], "stepz = 3: no such setting. Did you mean steps? There are: "),
        (["sweep.py", "study=quick", "hydra/launcher=nope"], "hydra/launcher = nope: no such option. Give one of bas"),
        (["train.py", "indexer=h2d33"], "indexer = h2d33: no such option. Give one of h1d1, "),
        pytest.param(
            ["train.py", "selector.kk=3"],
            "selector.kk = 3: no such setting. Did you mean k? There are: k.",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ["train.py", "seq_len", "=", "64"],
            "seq_len: cannot be read (missing EQUAL at '<EOF>'). Give key=value",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ["train.py", "--config-dir", "/nope"],
            "Additional config directory '/nope' not found",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ["train.py", "-m", "indexer=h1d8,h2d33"], "indexer = h2d33: no such option.", marks=pytest.mark.slow
        ),
    ],
)
def test_what_hydra_refuses_is_one_line(arguments, named, tmp_path):
    program, *rest = arguments
    more = [f"hydra.sweep.dir={tmp_path}"] if "-m" in rest else []
    process = launched([sys.executable, str(ROOT / program), *rest, *more])
    text, _ = process.communicate(timeout=120)
    assert process.returncode == 2
    assert text.startswith(f"error: {named}")
    assert text.count("\n") == 1


def test_a_launcher_that_is_not_installed_names_its_extra(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    import sweep

    monkeypatch.setattr(sweep, "find_spec", lambda package: None)
    with pytest.raises(SystemExit, match=r"hydra/launcher=ray: not installed; pip install -e '.\[ray\]'"):
        sweep.check_launcher(["study=quick", "hydra/launcher=ray"])
