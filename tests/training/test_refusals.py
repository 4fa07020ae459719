"""What no run can have ends with one sentence that names it, and leaves no weights."""

import json

import pytest

from dsa import compose, config, train
from dsa.spec import spec_of
from dsa.targets import TargetRefused
from dsa.training import RunFailed, RunRefused
from training.whole_runs import RUN, start

pytestmark = pytest.mark.slow


def test_an_interpolation_cannot_smuggle_in_a_target(outputs):
    cfg = config.compose([*RUN, f"output_dir={outputs}"])
    cfg.indexer = "${oc.create:{_target_: os.getcwd}}"
    with pytest.raises((RunFailed, TargetRefused, ValueError), match="allow_targets"):
        train(spec_of(cfg))


@pytest.mark.parametrize(
    ("overrides", "words", "kind"),
    [
        (["selector.k=0"], "selector.k = 0: a query must keep at least one key", "config"),
        (["indexer.heads=two"], "indexer.heads = two: give a whole number", "config"),
        (["data=stdlib", "data.source.cache_dir=null", "seq_len=100000000"], "seq_len = 100000000", "config"),
        (["data=text"], "data.path is not set", "config"),
        (["data=text", "data.path=nowhere.txt"], "nowhere.txt", "data"),
        (["model=pretrained", "model.path=/nowhere"], "model.path = /nowhere", "config"),
        (["pattern=multi_head", "model.heads=1"], "pattern.deal: it gives zones for 2 groups", "config"),
        (["ops=gpu"], "ops = gpu: no such backend", "config"),
    ],
)
def test_a_refused_setting_ends_with_one_sentence_a_status_and_nothing_else(overrides, words, kind, outputs):
    kept = [one for one in RUN if not (overrides[0] == "model=pretrained" and one.startswith("model."))]
    settings = [*kept, *overrides, f"output_dir={outputs}"]
    done = start(settings)
    text = done.communicate()[0]
    assert done.returncode == 2, text
    assert "error: " in text and words in text.splitlines()[-1], text
    assert "configuration" not in text and "Traceback" not in text
    assert not list(outputs.glob("runs/*"))
    with pytest.raises(RunRefused) as refused:
        train(compose(settings))
    assert refused.value.kind == kind


BATCH = "error: run #0: data.batch_size = 0: give a whole number from 1 (a batch needs at least one row)."


def test_among_several_runs_a_refused_one_is_a_failed_one_with_its_reason(outputs):
    done = start(["-m", *RUN, "recipe=dense", "steps=4", "data.batch_size=0,-1", f"output_dir={outputs}"])
    text = done.communicate()[0]
    assert done.returncode == 1, text
    assert text.splitlines()[-1] == BATCH
    failed = [json.loads(path.read_text()) for path in outputs.glob("runs/*/result.json")]
    assert [(one["status"], one["error"]["category"]) for one in failed] == [("failed", "config")] * 2


REFUSED = {
    "indexer.dim=7": "indexer.dim = 7",
    "model.rope_base=-5": "model.rope_base = -5",
    "dtype=fp12": "dtype = fp12",
    "stale=never": "stale = never",
    "trainer.accumulate=0": "trainer.accumulate = 0",
    "steps=2": "steps = 2",
    "recipe.clip=0": "recipe.clip = 0",
    "recipe.sparse.lr=-1": "recipe.sparse.lr = -1",
    "indexer._target_=os.system": "allow_targets",
    "indexer._target_=dsa.config.json.dumps": "no such class",
}


@pytest.mark.parametrize("override", REFUSED)
def test_what_no_run_can_have_is_refused_with_its_name(override, outputs):
    with pytest.raises((RunFailed, ValueError), match=REFUSED[override]):
        train(compose([*RUN, override, f"output_dir={outputs}"]))
    assert not list(outputs.glob("*/*/weights.ckpt"))


@pytest.mark.parametrize(("how", "status"), [([], 2), (["-m"], 1)])
def test_a_setting_refused_at_the_door_leaves_nothing(how, status, outputs):
    done = start([*how, *RUN, "dtype=fp12", f"output_dir={outputs}"])
    text = done.communicate()[0]
    assert (done.returncode, "Traceback" in text) == (status, False), text
    assert f"error: {'run #0: ' if how else ''}dtype = fp12" in text
    assert not list(outputs.rglob("result.json"))


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("model.rope_base=wide", r"^model\.rope_base = wide: give a number\.$"),
        ("model.d_model=63", r"^model\.heads = 2: must divide model\.d_model = 63\.$"),
        ("objective.weight=-1", r"^objective\.weight = -1: give a number above 0\.$"),
        ("optimizer.betas=[2,3]", r"^optimizer = adamw~: Invalid beta parameter at index 0: 2\.?0?$"),
        (
            "trainer=gpu",
            r"^trainer\.accelerator = cuda: there is none here; give trainer\.accelerator=auto, or one of cpu\.$",
        ),
        ("ops=cpu", r"^ops = cpu: no C\+\+ compiler here\. Or give ops=auto\.$"),
    ],
)
def test_a_setting_that_cannot_be_trained_is_named_before_the_dense_base(override, words, outputs, monkeypatch):
    monkeypatch.setattr("dsa.ops.native.unavailable", lambda: "no C++ compiler here.")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    with pytest.raises(RunRefused, match=words):
        train(compose([*RUN, override, f"output_dir={outputs}"]))
    assert not list(outputs.glob("runs/*")) and not (outputs / "bases").exists()


def test_an_unknown_option_is_answered_with_those_there_are():
    done = start(["indexer=h9d99"])
    text = done.communicate()[0]
    assert done.returncode != 0
    assert "h2d32" in text and "Traceback" not in text


def test_an_output_folder_that_cannot_be_written_is_named(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    done = start([*RUN, f"output_dir={blocked}/outputs"])
    text = done.communicate()[0]
    assert done.returncode == 1
    assert "output_dir" in text and "Traceback" not in text


def test_a_loss_that_diverges_is_recorded_and_leaves_no_result(outputs):
    with pytest.raises(RunFailed, match=r"recipe\.dense\.lr"):
        train(compose([*RUN, "recipe.dense.lr=1e30", "recipe.clip=1e30", "optimizer=adam", f"output_dir={outputs}"]))
    own = json.loads(next((outputs / "runs").glob("*/result.json")).read_text())
    assert own["status"] == "failed"
    assert own["error"]["category"] == "nan"
    assert not list(outputs.glob("*/*/weights.ckpt"))
