"""What is typed wrong ends in one sentence that names the setting, without a traceback."""

import json
import sys

import pytest

from dsa.cli_errors import settings_first
from dsa.doors import sweep
from dsa.signals import behind
from dsa.study.jobs import ToDo
from dsa.study.states import Results, Shelf
from dsa.study.workers.job import TimedOut, timed_out, work
from dsa.study.workers.launch import run_sweep
from dsa.targets import maker
from study.studies import ROOT, drive, launched, load


def told(capsys, *arguments):
    """Exit status and what a sweep with these arguments says on its error stream."""
    single = [a for a in arguments if "," not in a and "range(" not in a]
    with pytest.raises(SystemExit) as end:
        run_sweep(load(single), list(arguments), load, object())
    return end.value.code, capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["study=quick", "seed=a,b"], "seed = ['a', 'b']: give whole numbers"),
        (["study=quick", "seq_len=abc"], "seq_len = ['abc']: give whole numbers"),
        (["study=quick", "seed=0,1,2", "exploratory=false"], "Give 7 seeds, or exploratory=true"),
        (["study=quick", "indexer=h4d64,nope"], "indexer = nope: no such option. Give one of block_mean, "),
        (
            ["study=quick", "indexer.colour=1,2"],
            "indexer.colour = 1: no such setting of indexer=h4d64. There are: dim, heads, ",
        ),
        (["study=quick", "indexer.dim=8,seven"], "condition h4d64-seven, indexer=h4d64~: "),
        (["name=x", "data=mqar", "model=mqar", "seq_len=64", "pattern=local_global_64_128"], "so attention is dense"),
        (["study=quick", "on_error=pause"], "on_error = pause: give continue or stop"),
        (["study=quick", "timeout_minutes=0"], "timeout_minutes = 0: give more than 0"),
        (["study=quick", "wait=false"], "wait = false: only a scheduler goes on alone"),
        (["study=quick", "trainer=ddp"], "trainer.devices = 2: this launcher gives a run one process"),
        ([], "give study=quick"),
        (["study=quick", "ops=gpu"], "ops = gpu: no such backend. Give auto, blocked, cpu, reference, triton."),
        (["study=quick", "model.conv=-1"], "model.conv = -1: give a whole number from 0."),
        (["study=quick", "model.rope_base=0"], "model.rope_base = 0: give a number above 1."),
        (["study=quick", "model.rope_base=wide"], "model.rope_base = wide: give a number."),
        (["study=quick", "model.d_model=63"], "model.heads = 2: must divide model.d_model = 63."),
        (["study=quick", "model.d_model=wide"], "model.d_model = wide: give a whole number."),
        (["study=quick", "model.layers=1,0"], "model.layers = 0: give a whole number from 1."),
        (["study=quick", "objective.weight=-1"], "objective.weight = -1: give a number above 0."),
        (["study=quick", "objective.weight=much"], "objective.weight = much: give a number."),
        (["study=quick", "recipe.sparse.lr=fast"], "recipe.sparse.lr = fast: a learning rate must be a number from 0."),
        (["study=quick", "recipe.clip=none"], "recipe.clip = none: the largest gradient norm must be above 0."),
        (["study=quick", "optimizer.betas=[2,3]"], "optimizer = adamw~: Invalid beta parameter at index 0: 2"),
        (["study=quick", "precision=int8", "precision.bits=40"], "precision.bits = 40: give a whole number from 2 to"),
        (["study=quick", "logger.mode=loud"], "logger.mode = loud: give auto, online, offline or disabled."),
        (["study=quick", "trainer.accumulate=0"], "trainer.accumulate = 0: give a whole number from 1."),
        (["study=quick", "callbacks.val_every=0"], "callbacks.val_every = 0: give a whole number from 1."),
    ],
)
def test_a_mistake_is_named_before_anything_is_written(arguments, named, capsys, outputs):
    status, text = told(capsys, *arguments, f"output_dir={outputs}")
    assert status == 2
    assert named in text
    assert text.startswith("error: ")
    assert text.count("\n") == 1
    assert not outputs.exists()


def test_fused_kernels_without_a_compiler_are_refused_before_anything_is_written(capsys, outputs, monkeypatch):
    monkeypatch.setattr("dsa.ops.native.unavailable", lambda: "no C++ compiler found. Install g++.")
    status, text = told(capsys, "study=quick", "ops=cpu", f"output_dir={outputs}")
    assert (status, text) == (2, "error: ops = cpu: no C++ compiler found. Install g++. Or give ops=auto.\n")
    assert not outputs.exists()


@pytest.mark.slow
def test_a_sweep_ends_at_a_mistake_with_one_line(outputs):
    process = launched([sys.executable, str(ROOT / "sweep.py"), "study=quick", "ops=gpu", f"output_dir={outputs}"])
    text, _ = process.communicate(timeout=120)
    assert (process.returncode, text) == (
        2,
        "error: ops = gpu: no such backend. Give auto, blocked, cpu, reference, triton.\n",
    )
    assert not outputs.exists()


@pytest.mark.slow
def test_a_worker_ends_at_a_mistake_that_only_its_machine_knows(tiny, outputs, monkeypatch):
    (plan,) = tiny()
    run = plan.applicable[0]
    drive([plan], outputs, lambda jobs, files: [None] * len(jobs))
    (job,) = ToDo(Shelf(outputs, "keep"), Results("keep")).jobs("judge", [run])
    path = job.write("tiny", {}, set(), None, None)
    content = json.loads(path.read_text())
    content["runs"][0]["config"]["ops"] = "gpu"
    path.write_text(json.dumps(content))
    category, reason = work(path)
    assert (category, reason) == ("config", "ops = gpu: no such backend. Give auto, blocked, cpu, reference, triton.")
    assert json.loads((run.folder / "result.json").read_text())["error"] == {"category": "config", "reason": reason}


def test_an_object_s_own_error_is_raised_without_a_circle_and_with_the_place_it_comes_from():
    node = {"_target_": "dsa.training.objective.IndexerObjective", "weight": -1, "train_when_sparse": True}
    with pytest.raises(ValueError) as caught:
        maker(node, "objective", ())()
    chain, error = [], caught.value
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or error.__context__
    assert error is None
    assert caught.traceback[-1].name == "above"


def test_a_circle_of_errors_is_walked_once():
    one, two = RuntimeError(), RuntimeError()
    one.__cause__, two.__context__ = two, one
    assert timed_out(one) is None
    assert behind(one) is None
    two.__cause__ = late = TimedOut()
    assert timed_out(one) is late


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["sweep.py", "study=quik"], "study = quik: no such option. Give one of advanced_strategies, all, "),
        (["sweep.py", "study=quick", "seed=range(0,x)"], "seed=range(0,x): cannot be read (TypeError"),
        pytest.param(
            ["sweep.py", "study=pretrained", "model=pretrained"],
            "model.path: this option needs a value; give model.path=...",
            marks=pytest.mark.slow,
        ),
        (["sweep.py", "study=quick", "stepz=3"], "stepz = 3: no such setting. Did you mean steps? There are: "),
        (["sweep.py", "study=quick", "hydra/launcher=nope"], "hydra/launcher = nope: no such option. Give one of bas"),
        (["train.py", "indexer=h2d33"], "indexer = h2d33: no such option. Give one of block_mean, "),
        pytest.param(
            ["train.py", "selector.kk=3"],
            "selector.kk = 3: no such setting of dsa.selectors.TopK. Did you mean k? There are: k.",
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
        pytest.param(
            ["train.py", "-m", "indexer=moba,qwen4_qsa", "indexer.unit=4"],
            "indexer.unit = 4: no such setting of dsa.indexers.LightningIndexer. Did you mean init? There are: dim, "
            "heads, init, latent, rotary_dim, weight. Where each of these options has it, write ++indexer.unit=4.",
            marks=pytest.mark.slow,
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
    monkeypatch.setattr(sweep, "find_spec", lambda package: None)
    with pytest.raises(SystemExit, match=r"hydra/launcher=ray: not installed; pip install -e '.\[ray\]'"):
        sweep.check_launcher(["study=quick", "hydra/launcher=ray"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("asked", "shown"),
    [(["--cfg", "job"], "finalists: null"), (["--info", "defaults"], "Defaults List"),
     (["-sc", "query=bash"], "study=quick"), (["--help"], "hydra")],
)  # fmt: skip
def test_hydra_shows_what_it_is_asked_for(asked, shown):
    line = "python sweep.py study=qui"  # as the shell hands it over
    typed = {"COMP_LINE": line, "COMP_POINT": str(len(line)), "COMP_CWORD": "2"}
    process = launched([sys.executable, str(ROOT / "sweep.py"), *asked], **typed)
    text, _ = process.communicate(timeout=120)
    assert process.returncode == 0, text
    assert shown in text and "Traceback" not in text and "ValueError" not in text


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("a=1 --config-dir x b=2", "a=1 b=2 --config-dir x"),
        ("-m a=1 --config-dir x b=2 -c job ~e +d=4", "a=1 b=2 ~e +d=4 -m --config-dir x -c job"),
        ("a=1 b=2 --config-dir x", "a=1 b=2 --config-dir x"),
        ("a=1 --nope b=2", "a=1 --nope b=2"),
    ],
)
def test_settings_may_stand_on_both_sides_of_an_option(given, taken):
    assert settings_first(given.split()) == taken.split()


@pytest.mark.slow
def test_a_setting_after_an_option_is_taken(tmp_path):
    line = ["train.py", "seed=1", "--config-dir", str(tmp_path), "seq_len=96", "--cfg", "job"]
    text, _ = launched([sys.executable, *line]).communicate(timeout=100)
    assert "seq_len: 96\n" in text and "seed: 1\n" in text
