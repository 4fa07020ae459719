"""Whole runs: deterministic, continued after a kill, honest about what they did."""

import csv
import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import QUIET, SMALL
from forked import launch

from dsa import compose, config, load_run, load_study, train
from dsa.artifacts.store import PLACES
from dsa.build import build_data
from dsa.graph import graph_of
from dsa.spec import spec_of
from dsa.targets import TargetRefused
from dsa.training import RunFailed

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
STEPS = ["recipe.dense.steps=12", "recipe.warmup.steps=8", "recipe.sparse.steps=10"]
OFTEN = ["callbacks.checkpoint_every=2", "callbacks.val_every=5"]
RUN = [*SMALL, *QUIET, *STEPS, *OFTEN, "dtype=fp32", "pattern=causal", "selector.k=8"]


def weights(result):
    return load_run(result.folder).state_dict()


def artifact(result, kind):
    """The folder of one of a run's artifacts; a dense control is a joint training."""
    place = PLACES["joint" if kind == "control" else kind]
    return Path(result.folder).parents[1] / place / result.artifacts[kind]


def same(a, b):
    assert a.keys() == b.keys()
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """One finished run that the tests compare with."""
    return train(compose([*RUN, f"output_dir={tmp_path_factory.mktemp('whole')}"]))


def test_the_same_configuration_and_seed_give_the_same_weights(uninterrupted, outputs):
    again = train(compose([*RUN, f"output_dir={outputs}"]))
    assert same(weights(uninterrupted), weights(again))
    assert again.val_loss == uninterrupted.val_loss
    other = train(compose([*RUN, "seed=1", f"output_dir={outputs}"]))
    assert not same(weights(uninterrupted), weights(other))


def test_the_loaded_model_gives_the_logits_of_the_end_of_training(uninterrupted):
    result = uninterrupted
    model = load_run(result.folder)
    data = build_data(compose(RUN))
    losses = []
    with torch.no_grad():
        for batch in data.eval_loader():
            logits = model(batch.tokens).float().mT
            losses.append(torch.nn.functional.cross_entropy(logits, batch.targets, reduction="none").sum(1))
            asked = (batch.targets != -100).sum(1)
    loss = torch.cat(losses).sum() / (len(losses) * asked.sum())
    assert abs(float(loss) - result.val_loss) < 1e-5
    saved = torch.load(artifact(result, "joint") / "weights.ckpt", weights_only=True, map_location="cpu")
    assert same(saved, model.state_dict())


def test_the_result_holds_every_promised_field(uninterrupted):
    values = json.loads((Path(uninterrupted.folder) / "result.json").read_text())
    promised = """run_id schema status study artifacts indexer_seed condition model data recipe seq_len seed val_loss
        val_perplexity val_accuracy recall_slice_loss chance_loss unigram_loss dense_val_loss delta_loss base_val_loss
        swap_val_loss params density mean_k selection flops time memory stability speed_is_real warnings""".split()
    assert set(promised) <= set(values)
    assert set(values["condition"]) == {"indexer", "pattern", "selector", "precision"}
    assert {"total", "indexer", "indexer_share"} <= set(values["params"])
    assert {"mass", "oracle_mass", "recall", "kl"} <= set(values["selection"]["mean"])
    assert len(values["selection"]["layers"]) == 2
    assert {"dense_attention", "indexer", "select", "sparse_attention"} <= set(values["flops"])
    assert {"step_ms", "tokens_per_s", "infer_ms", "indexer_ms", "select_ms", "attend_ms", "contended"} <= set(
        values["time"]
    )
    assert {"peak_mb", "indexer_mb"} <= set(values["memory"])
    assert {"loss_std", "spikes", "grad_norm_p99"} <= set(values["stability"])
    assert 0 < values["selection"]["mean"]["mass"] <= values["selection"]["mean"]["oracle_mass"] + 1e-6 <= 1.001
    assert values["delta_loss"] == values["val_loss"] - values["dense_val_loss"]
    assert values["density"] == pytest.approx((8 * 64 - 28) / (64 * 65 / 2))
    assert values["artifacts"]["base"].startswith("dense-")
    frame = load_study(Path(uninterrupted.folder).parent)
    assert frame.loc[0, "selection.mean.mass"] == values["selection"]["mean"]["mass"]


def test_a_finished_run_is_not_repeated_unless_asked(uninterrupted):
    result = Path(uninterrupted.folder) / "result.json"
    before = result.stat().st_mtime_ns
    overrides = [*RUN, f"output_dir={Path(uninterrupted.folder).parents[1]}"]
    train(compose(overrides))
    assert result.stat().st_mtime_ns == before
    again = train(compose([*overrides, "rerun=true"]))
    assert result.stat().st_mtime_ns > before
    assert again.val_loss == uninterrupted.val_loss


def test_conditions_share_one_dense_base_and_one_control(uninterrupted):
    folder = Path(uninterrupted.folder).parents[1]
    other = train(compose([*RUN, "indexer=h1d8", "precision=int8", f"output_dir={folder}"]))
    for kind in ("base", "control"):
        assert other.artifacts[kind] == uninterrupted.artifacts[kind]
    assert len(list((folder / "bases").iterdir())) == 1
    assert other.run_id != uninterrupted.run_id


def test_what_comes_after_training_reuses_what_was_trained(uninterrupted, caplog):
    folder = Path(uninterrupted.folder).parents[1]
    trained = {kind: set((folder / PLACES[kind]).iterdir()) for kind in ("base", "indexers", "joint")}
    with caplog.at_level("INFO", logger="dsa"):
        other = train(compose([*RUN, "pattern=strided", "recipe.sparse.steps=0", f"output_dir={folder}"]))
    assert "not trained again" in caplog.text and uninterrupted.artifacts["indexers"] in caplog.text
    assert {kind: set((folder / PLACES[kind]).iterdir()) for kind in trained} == trained
    assert other.artifacts["indexers"] == uninterrupted.artifacts["indexers"]
    assert other.swap_val_loss == other.val_loss != uninterrupted.swap_val_loss


def test_a_format_is_applied_after_training_unless_it_takes_part(uninterrupted):
    folder = Path(uninterrupted.folder).parents[1]
    after = train(compose([*RUN, "precision=int4", f"output_dir={folder}"]))
    assert after.artifacts["joint"] == uninterrupted.artifacts["joint"]
    assert after.val_loss != uninterrupted.val_loss
    during = train(compose([*RUN, "precision=int4", "precision.in_training=true", f"output_dir={folder}"]))
    assert during.artifacts["base"] == after.artifacts["base"]
    assert during.artifacts["indexers"] != after.artifacts["indexers"]
    assert during.artifacts["joint"] != after.artifacts["joint"]


def test_another_indexer_seed_keeps_the_base_and_nothing_of_the_indexers(uninterrupted):
    folder = Path(uninterrupted.folder).parents[1]
    other = train(compose([*RUN, "indexer_seed=1", "recipe.sparse.steps=0", f"output_dir={folder}"]))
    assert other.artifacts["base"] == uninterrupted.artifacts["base"]
    assert other.artifacts["indexers"] != uninterrupted.artifacts["indexers"]
    assert other.swap_val_loss != uninterrupted.swap_val_loss


def test_controls_have_no_indexer_and_dense_is_its_own_ceiling(uninterrupted):
    folder = Path(uninterrupted.folder).parents[1]
    window = train(compose([*RUN, "selector=window", "selector.k=8", f"output_dir={folder}"]))
    assert window.params["indexer"] == 0
    assert window.swap_val_loss == pytest.approx(window.swap_window_loss)
    dense = train(compose([*RUN[:-1], "selector=dense", f"output_dir={folder}"]))
    assert dense.delta_loss == 0
    assert dense.artifacts["joint"] == uninterrupted.artifacts["control"]


def test_names_and_devices_do_not_change_the_hash_and_numbers_do():
    def hashed(*overrides):
        spec = compose([*RUN, *overrides])
        return graph_of(spec, build_data(spec).fingerprint).hash

    plain = hashed()
    for same in (
        "logger=wandb",
        "callbacks=default",
        "trainer=cpu",
        "output_dir=elsewhere",
        "name=other",
        "ops=blocked",
        "memory=checkpoint",
        "memory=offload",
    ):
        assert hashed(same) == plain, same
    assert len({hashed(), hashed("data.seed=7"), hashed("data.seq_len=48")}) == 3
    assert hashed("pattern=local_global") == hashed("pattern=local_global_32_64")
    changes = ("seed=1", "indexer.dim=8", "data.batch_size=8", "recipe.sparse.lr=1e-4", "dtype=bf16", "seq_len=32")
    assert len({hashed(change) for change in changes} | {plain}) == len(changes) + 1


def start(overrides):
    return launch([sys.executable, str(ROOT / "train.py"), *overrides], os.environ | {"WANDB_MODE": "offline"})


def kill_when(process, seen):
    """kill -9 as soon as `seen()` holds; fails if the process ends before."""
    limit = time.monotonic() + 120
    while not seen():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < limit
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()


def rows(folder: Path):
    return list(csv.DictReader((folder / "metrics.csv").read_text().splitlines()))


def timeless(table, names):
    return sorted(tuple(row.get(name) for name in names) for row in table)


MOMENTS = {
    "dense": "bases/*.partial/last.ckpt",
    "between base and warmup": "bases/*/artifact.json",
    "warmup": "indexers/.cohorts/*/last.ckpt",
    "between warmup and sparse": "indexers/*/artifact.json",
    "sparse": "joint/h2d32-*.partial/last.ckpt",
    "before the result": "joint/h2d32-*/artifact.json",
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_run_ends_in_the_same_weights_and_a_gapless_record(moment, uninterrupted, outputs):
    overrides = [*RUN, f"output_dir={outputs}"]
    kill_when(start(overrides), lambda: any(outputs.glob(MOMENTS[moment])))
    assert not any((outputs / "runs").glob("*/result.json"))
    result = train(compose(overrides))
    assert same(weights(result), weights(uninterrupted))
    assert result.val_loss == uninterrupted.val_loss
    for kind in ("run", *result.artifacts):
        places = [Path(r.folder) if kind == "run" else artifact(r, kind) for r in (uninterrupted, result)]
        whole, resumed = map(rows, places)
        kept = [name for name in whole[0] if not name.startswith("speed/")]
        assert timeless(resumed, kept) == timeless(whole, kept)
    steps = [int(row["step"]) for row in rows(Path(result.folder)) if row["kind"] == "train"]
    assert steps == list(range(13, 31))


def test_no_row_is_lost_when_killed_right_after_a_checkpoint(uninterrupted, outputs, monkeypatch):
    overrides = [*RUN, f"output_dir={outputs}"]
    script = (
        "import os\n"
        "from dsa import compose, train\n"
        "from dsa.judging.checkpoints import DurableCheckpoints as Checkpoints\n"
        "save = Checkpoints.save_checkpoint\n"
        "def die(self, state, path, storage_options=None):\n"
        "    save(self, state, path)\n"
        "    if '/h2d32' in str(path) and state['global_step'] == 4: os._exit(9)\n"
        "Checkpoints.save_checkpoint = die\n"
        f"train(compose({overrides!r}))\n"
    )
    assert launch([sys.executable, "-c", script]).wait() == 9
    result = train(compose(overrides))
    steps = [int(row["step"]) for row in rows(Path(result.folder)) if row["kind"] == "train"]
    assert steps == list(range(13, 31))
    assert same(weights(result), weights(uninterrupted))


@pytest.mark.parametrize("selector", ["adaptive_entropy", "adaptive_position", "adaptive_dynamic"])
def test_adaptive_budgets_resume_and_go_with_recomputed_activations(selector, outputs):
    adaptive = [*RUN[:-1], f"selector={selector}", "selector.min_k=2", "selector.target_mean=8"]
    whole = train(compose([*adaptive, f"output_dir={outputs / 'whole'}"]))
    recomputed = train(compose([*adaptive, "memory.checkpoint=true", f"output_dir={outputs / 'recomputed'}"]))
    gains = [weights(r)["routers.0.selector.log_gain"] for r in (whole, recomputed)]
    assert gains[0] != 0
    torch.testing.assert_close(*gains)
    moment = lambda: any((outputs / "killed").glob(f"joint/*{selector}*.partial/last.ckpt"))
    kill_when(start([*adaptive, f"output_dir={outputs / 'killed'}"]), moment)
    assert same(weights(train(compose([*adaptive, f"output_dir={outputs / 'killed'}"]))), weights(whole))


@pytest.mark.parametrize("selector", ["topk", "window"])
def test_a_recipe_that_ends_after_the_warm_up_judges_the_untouched_backbone(selector, outputs):
    overrides = [*RUN, f"selector={selector}", "recipe.sparse.steps=0", f"output_dir={outputs}"]
    result = train(compose(overrides))
    assert result.swap_val_loss == result.val_loss
    assert result.dense_val_loss == result.base_val_loss
    assert load_run(result.folder).vocab_size == 192


def test_an_indexer_of_ones_own_needs_no_more_than_score(outputs, tmp_path, monkeypatch):
    (tmp_path / "mylab.py").write_text(
        "from torch import nn\n"
        "from dsa.indexers import Indexer\n"
        "from dsa.ops import IndexFeatures\n"
        "class Dot(Indexer):\n"
        "    def __init__(self, d_model):\n"
        "        super().__init__()\n"
        "        self.both = nn.Linear(d_model, 12, bias=False)\n"
        "    def score(self, x, rotary):\n"
        "        q, k = self.both(x).chunk(2, -1)\n"
        "        return IndexFeatures(q[:, None, :, None], k[:, None], activation='none')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    cfg = config.compose([*RUN, "allow_targets=[mylab]", f"output_dir={outputs}"])
    cfg.indexer = {"_target_": "mylab.Dot"}
    result = train(spec_of(cfg))
    assert result.params["indexer"] == 2 * 32 * 12
    assert result.flops["indexer"] > 0
    assert load_run(result.folder, allow_targets=["mylab"]).vocab_size == 192
    with pytest.raises(ValueError, match="allow_targets"):
        load_run(result.folder)


def test_an_interpolation_cannot_smuggle_in_a_target(outputs):
    cfg = config.compose([*RUN, f"output_dir={outputs}"])
    cfg.indexer = "${oc.create:{_target_: os.getcwd}}"
    with pytest.raises((RunFailed, TargetRefused, ValueError), match="allow_targets"):
        train(spec_of(cfg))


def test_resume_false_starts_over(outputs):
    overrides = [*RUN, f"output_dir={outputs}"]
    kill_when(start(overrides), lambda: any(outputs.glob(MOMENTS["sparse"])))
    (next(outputs.glob(MOMENTS["sparse"])).parent / "mark").touch()
    result = train(compose([*overrides, "resume=false"]))
    assert result.status == "finished"
    assert not any(outputs.rglob("mark"))


def test_noise_ends_with_the_warning_that_the_loss_says_nothing(outputs):
    small = [o for o in SMALL if not o.startswith("data=")]
    result = train(compose([*small, *QUIET, *STEPS, "data=noise", f"output_dir={outputs}"]))
    assert any("carries no information" in warning for warning in result.warnings)


def test_a_budget_that_reaches_the_length_runs_and_says_that_it_is_dense(outputs):
    result = train(compose([*SMALL, *QUIET, "steps=6", "selector.k=64", f"output_dir={outputs}"]))
    assert result.density == 1.0
    assert not result.speed_is_real
    assert any("this attention is dense" in warning for warning in result.warnings)


def test_scratch_has_no_base_and_its_control_is_dense_from_scratch(outputs):
    result = train(compose([*SMALL, *QUIET, "steps=6", "recipe=scratch", f"output_dir={outputs}"]))
    assert result.artifacts["base"] is None
    assert result.swap_val_loss is None
    assert result.dense_val_loss is not None


def test_without_a_control_the_difference_is_null_and_said(outputs):
    result = train(compose([*SMALL, *QUIET, "steps=6", "dense_control=false", f"output_dir={outputs}"]))
    assert result.delta_loss is None
    assert any("no dense control was found" in warning for warning in result.warnings)


@pytest.mark.parametrize(("lr", "forgets"), [(0.3, True), (1e-4, False)])
def test_joint_training_that_undoes_what_dense_attention_knew_is_said(outputs, lr, forgets):
    result = train(compose([*SMALL, *QUIET, "steps=12", f"recipe.sparse.lr={lr}", f"output_dir={outputs}"]))
    assert (result.dense_val_loss > result.base_val_loss + 0.01) is forgets
    assert any("made dense attention itself worse" in warning for warning in result.warnings) is forgets


def test_a_loss_that_diverges_is_recorded_and_leaves_no_result(outputs):
    with pytest.raises(RunFailed, match=r"recipe\.dense\.lr"):
        train(compose([*RUN, "recipe.dense.lr=1e30", "recipe.clip=1e30", "optimizer=adam", f"output_dir={outputs}"]))
    own = json.loads(next((outputs / "runs").glob("*/result.json")).read_text())
    assert own["status"] == "failed"
    assert own["error"]["category"] == "nan"
    assert not list(outputs.glob("*/*/weights.ckpt"))


@pytest.mark.parametrize(
    ("overrides", "words", "kind"),
    [
        (["selector.k=0"], "selector.k = 0: a query must keep at least one key", "config"),
        (["data=stdlib", "data.source.cache_dir=null", "seq_len=100000000"], "seq_len = 100000000", "config"),
        (["data=text", "data.path=nowhere.txt"], "nowhere.txt", "data"),
        (["data.batch_size=0"], "data.batch_size = 0", "config"),
        (["model.conv=-1"], "model.conv = -1", "config"),
        (["ops=gpu"], "ops = gpu: no such backend", "config"),
    ],
)
def test_bad_input_ends_with_one_sentence_a_status_and_no_result(overrides, words, kind, outputs):
    done = start([*RUN, *overrides, f"output_dir={outputs}"])
    text = done.communicate()[0]
    assert done.returncode == 1, text
    assert words in text
    assert "Traceback" not in text
    failed = [json.loads(path.read_text()) for path in outputs.glob("*/*/result.json")]
    assert [f["status"] for f in failed] == ["failed"]
    assert failed[0]["error"]["category"] == kind


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
    assert "error: dtype = fp12" in text
    assert not list(outputs.rglob("result.json"))


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("model.rope_base=wide", r"^model\.rope_base = wide: give a number\.$"),
        ("model.d_model=63", r"^model\.heads = 2: must divide model\.d_model = 63\.$"),
        ("objective.weight=-1", r"^objective\.weight = -1: give a number above 0\.$"),
        ("optimizer.betas=[2,3]", r"^optimizer = adamw~: Invalid beta parameter at index 0: 2\.?0?$"),
        ("ops=cpu", r"^ops = cpu: no C\+\+ compiler here\. Or give ops=auto\.$"),
    ],
)
def test_a_setting_that_cannot_be_trained_is_named_before_the_dense_base(override, words, outputs, monkeypatch):
    monkeypatch.setattr("dsa.ops.native.unavailable", lambda: "no C++ compiler here.")
    with pytest.raises(RunFailed, match=words):
        train(compose([*RUN, override, f"output_dir={outputs}"]))
    assert [json.loads(path.read_text())["status"] for path in outputs.glob("*/*/result.json")] == ["failed"]
    assert not (outputs / "dense").exists()


def test_an_unknown_option_is_answered_with_those_there_are():
    done = start(["indexer=h9d99"])
    text = done.communicate()[0]
    assert done.returncode != 0
    assert "h2d32" in text and "Traceback" not in text


def test_hydra_leaves_no_files_of_its_own(outputs, tmp_path):
    before = set(ROOT.iterdir())
    assert start([*SMALL, *QUIET, "steps=6", "recipe=dense", f"output_dir={outputs}"]).wait() == 0
    assert set(ROOT.iterdir()) - before <= {ROOT / "outputs"}


def test_an_output_folder_that_cannot_be_written_is_named(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    done = start([*RUN, f"output_dir={blocked}/outputs"])
    text = done.communicate()[0]
    assert done.returncode == 1
    assert "output_dir" in text and "Traceback" not in text


def test_plain_multirun_still_works(outputs):
    done = start(["-m", "indexer=h1d8,h2d16", *SMALL, *QUIET, "steps=6", f"output_dir={outputs}"])
    text = done.communicate()[0]
    assert done.returncode == 0, text
    assert len(list((outputs / "runs").glob("*/result.json"))) == 2


def test_two_processes_that_start_together_share_one_base(outputs):
    both = [start([*RUN, f"indexer={name}", f"output_dir={outputs}"]) for name in ("h1d8", "h2d16")]
    for process in both:
        text = process.communicate()[0]
        assert process.returncode == 0, text
    assert len(list((outputs / "bases").iterdir())) == 1
    assert len(list((outputs / "joint").glob("dense-*"))) == 1
    assert len(list((outputs / "runs").glob("*/result.json"))) == 2


def test_ones_own_package_is_admitted_by_name(outputs, tmp_path, monkeypatch):
    package = tmp_path / "mylab"
    package.mkdir()
    (package / "__init__.py").write_text(
        "from dsa.patterns import LocalGlobal\nclass Mine(LocalGlobal):\n    '''Like local_global.'''\n"
    )
    config = tmp_path / "conf" / "pattern"
    config.mkdir(parents=True)
    (config / "mine.yaml").write_text("# Mine.\n_target_: mylab.Mine\nwindow: 4\nbudget: 8\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    arguments = ["--config-dir", str(tmp_path / "conf"), "pattern=mine", *SMALL, *QUIET, "steps=6"]
    refused = start([*arguments, f"output_dir={outputs}"])
    text = refused.communicate()[0]
    assert refused.returncode == 1
    assert "allow_targets=[mylab]" in text
    admitted = start([*arguments, "allow_targets=[mylab]", f"output_dir={outputs}"])
    assert admitted.wait() == 0, admitted.stdout.read()
    assert list((outputs / "runs").glob("h2d32-mine-*/result.json"))
