"""A pretrained model from its files to a verdict on its indexers."""

import io
from dataclasses import replace

import pytest
import torch

pytest.importorskip("transformers", reason="the extra dsa[pretrained] is not installed")
from backbones.tiny_models import CONFIGS, little_text, saved
from conftest import QUIET, options
from rich.console import Console
from transformers import AutoModelForCausalLM

import dsa
from dsa.artifacts.store import PLACES
from dsa.graph import named
from dsa.training import RunFailed, console
from dsa.training.caveats import uncertified

pytestmark = pytest.mark.slow

LENGTH = 48


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("model") / "tiny", CONFIGS["llama"](), tokenizer=True)


@pytest.fixture(scope="module")
def settings(folder, tmp_path_factory):
    place = tmp_path_factory.mktemp("pretrained")
    return [
        "model=pretrained", f"model.path={folder}", "data=text_model", f"data.path={little_text(place)}",
        f"cache_dir={place}", "indexer=h2d8", "pattern=causal", "selector.k=6", f"seq_len={LENGTH}",
        "recipe.warmup.steps=4", "dtype=fp32", f"output_dir={place / 'outputs'}", *QUIET,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def run(settings):
    return dsa.train(dsa.compose(settings))


def test_a_run_judges_indexers_on_the_model_as_it_is(run, settings):
    assert run.status == "finished" and run.val_loss == run.swap_val_loss
    assert run.base_val_loss != run.swap_val_loss
    assert run.selection["mean"]["mass"] < 1 and [layer["layer"] for layer in run.selection["layers"]] == [0, 1]
    store = dsa.compose(settings).outputs
    (base,) = (store / PLACES["base"]).iterdir()
    assert sum(file.stat().st_size for file in base.iterdir()) < 20_000, "weights are not copied into artifacts"


def test_a_run_is_compared_with_the_first_keys_and_the_nearest_at_its_budget(run, settings):
    own = ["selector=sink_window", "selector.k=6"]
    alone = dsa.train(dsa.compose([*(one for one in settings if not one.startswith(("selector", "indexer"))), *own]))
    assert run.swap_sink_window_loss == pytest.approx(alone.swap_val_loss)
    assert run.swap_sink_window_accuracy is not None
    assert len({run.swap_sink_window_loss, run.swap_window_loss, run.swap_val_loss}) == 3
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(console, "console", Console(file=said, width=120))
        console.show_result(run, [])
    assert f"first and nearest keys {run.swap_sink_window_loss:.4f}" in said.getvalue()


def test_a_run_certifies_that_it_is_the_model_and_looks_at_nothing_later(run):
    told = run.certificate
    assert told["tokens"] == LENGTH and told["acted"] == LENGTH - 6, (
        "6 keys: from the seventh query on some are left out"
    )
    assert told["identity"] < 1e-4 and told["causality"] == 0 < told["reach"]
    assert told["decode"] < 1e-5 and told["reselected"] == 0
    assert 0 <= told["ties"] <= 1


def test_a_certificate_of_an_earlier_version_is_still_read(run):
    told = {name: value for name, value in run.certificate.items() if name not in ("decode", "reselected")}
    assert uncertified(replace(run, certificate=told)) == uncertified(run)


def test_a_certificate_tells_a_selection_that_looks_ahead_and_scores_that_tie(run, monkeypatch):
    from dsa.judging.certificate import certify

    model, tokens = dsa.load_run(run.folder), torch.randint(1, 60, (1, LENGTH))
    own = [router.indexer.score for router in model.routers]
    for changed, router in ((changed, router) for changed in (blank, ahead) for router in model.routers):
        monkeypatch.setattr(router.indexer, "score", changed(own[router.site]))
        if changed is blank and router is model.routers[-1]:
            assert certify(model, tokens, most=6)["ties"] == 1
    assert certify(model, tokens, most=6)["causality"] > 0


def blank(score):
    """Every score 0."""
    return lambda x, rotary: (own := score(x, rotary))._replace(queries=own.queries * 0)


def ahead(score):
    """Hidden states of later tokens."""
    return lambda x, rotary: score(x.roll(-12, 1), rotary)


def test_the_base_is_what_the_files_hold_and_not_where_they_lie(settings, folder, tmp_path, run):
    import shutil

    from dsa.graph import graph_of

    moved = shutil.copytree(folder, tmp_path / "elsewhere")
    spec = dsa.compose([*settings, f"model.path={moved}"])
    assert graph_of(spec, run.corpus).base.hash == graph_of(dsa.compose(settings), run.corpus).base.hash
    other = saved(tmp_path / "other", CONFIGS["llama"](), seed=1, tokenizer=True)
    spec = dsa.compose([*settings, f"model.path={other}"])
    assert graph_of(spec, run.corpus).base.hash != graph_of(dsa.compose(settings), run.corpus).base.hash


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        (["model.path=/models/llama-1.5B/"], "llama-1.5B"),
        (["model.path=owner/qwen"], "qwen"),
        (["model.path=/models/Tiny-Q4_0.gguf", "model.leave_dense=[0]"], "Tiny-Q4_0~"),
        (["model.path=tiny"], "tiny"),
        ([f"model.path=/{'x' * 60}"], "x" * 40),
        (["model=smollm2", "model.path=smollm2", "model.leave_dense=[0]"], "smollm2~"),
    ],
)
def test_a_run_is_named_by_its_model(settings, overrides, name):
    spec = dsa.compose([*settings, *overrides])
    assert (spec.model.option, spec.options["model"]) == (name, name)
    assert f"-{name}-text-" in named(spec, ["indexer"])


def test_the_title_of_a_result_has_the_model(run, monkeypatch):
    monkeypatch.setattr(console, "console", Console(file=(out := io.StringIO()), width=120))
    console.show_result(run, [])
    assert "tiny · text · L 48 · seed 0" in out.getvalue() and "-tiny-text-" in run.run_id


@torch.no_grad()
def test_what_a_run_selects_is_dumped_and_replayed(run, tmp_path):
    model, tokens = dsa.load_run(run.folder), torch.randint(1, 60, (1, 20), generator=torch.Generator().manual_seed(0))
    wanted, found = model(tokens), dsa.dump_indices(model, tokens, tmp_path / "x.npy")
    assert found.shape == (20, 2, 6)
    for router in model.routers:
        router.indexer.to_query.weight.normal_()
    assert model.run(tokens, dsa.replay_indices(model, tmp_path / "x.npy")).logits.equal(wanted)
    assert not model(tokens).equal(wanted)


def test_joint_training_changes_backbone_and_indexers_beside_a_dense_control(settings):
    spec = dsa.compose([*settings, "recipe=continue", "recipe.warmup.steps=4", "recipe.sparse.steps=3"])
    assert spec.recipe.dense_steps == 0, "a pretrained model has no dense stage"
    run = dsa.train(spec)
    assert run.val_loss != run.swap_val_loss
    assert run.dense_val_loss is not None
    trained, before = dsa.load_run(run.folder), AutoModelForCausalLM.from_pretrained(spec.model.node["path"])
    assert not trained.hf.model.layers[0].mlp.up_proj.weight.equal(before.model.layers[0].mlp.up_proj.weight)
    with pytest.raises(ValueError, match=r"its backbone was trained too; dsa\.load_run gives it whole"):
        dsa.attach(before, run.folder)


def test_joint_training_recomputes_the_models_layers_to_the_same_numbers(settings, tmp_path):
    joint = [*settings, "recipe=continue", "recipe.warmup.steps=2", "recipe.sparse.steps=3", "objective=gradient_kl"]
    ways = (["memory=none"], ["memory=checkpoint", "memory.offload=true"])
    one, other = (dsa.train(dsa.compose([*joint, *way, f"output_dir={tmp_path / str(len(way))}"])) for way in ways)
    assert (one.run_id, one.val_loss, one.swap_val_loss) == (other.run_id, other.val_loss, other.swap_val_loss)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["model=pretrained"], "model.path: this option needs a value; give model.path=..."),
        (
            ["data=stdlib_model"],
            "data.source.tokenizer.path: it is taken from model.path, which the options chosen do not have. "
            "Give another data=..., or model= one that has it: gemma3_270m, pretrained, smollm2.",
        ),
        (
            ["model=pretrained", "model.path=x", "model.index_every=2"],
            "model.index_every = 2: no such setting of dsa.backbones.pretrained.Pretrained. "
            "It stands alone: give index_every=... There are here: leave_dense, path, seq_len.",
        ),
        ("indexer=h2d32", "compose: give a list of settings, as ['indexer=h2d32']."),
        (["precision=h9"], f"precision = h9: no such option. Give one of {', '.join(options('precision'))}."),
        (
            ["pattern=causal", "pattern.width=9"],
            "pattern.width = 9: no such setting of dsa.patterns.Causal. There are: budget.",
        ),
    ],
)
def test_what_an_option_lacks_is_said_in_a_sentence(overrides, said):
    with pytest.raises(ValueError) as error:
        dsa.compose(overrides)
    assert str(error.value) == said


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ["model.path=/nowhere"],
            r"model\.path = /nowhere: nothing is there \(seen from .*\)\. Give a folder, a GGUF file",
        ),
        (["model.path={empty}/a.bin"], r"a\.bin: that is no folder\. Give a folder, a GGUF file, or a name on the hub"),
        (["model.path=nobody.gguf"], r"model\.path = nobody\.gguf: there is no such file"),
        (["model.path={empty}"], r"no config\.json there, which every model of transformers has"),
        (["seq_len=300"], r"seq_len = 300: the model reads at most 256 tokens"),
        (["data=stdlib"], r"data: its tokens go up to 255, the model .* knows 63 and below\. Give data=stdlib_model"),
        (["model.leave_dense=[0,1]"], r"every attention layer of LlamaForCausalLM has a window of its own or is left"),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence(settings, tmp_path, overrides, said):
    own = [override.format(empty=tmp_path) for override in overrides]
    (tmp_path / "a.bin").touch()
    kept = [s for s in settings if not (own[0].startswith("data=") and s.startswith("data"))]
    with pytest.raises((RunFailed, ValueError), match=said):
        dsa.train(dsa.compose([*kept, *own]))
