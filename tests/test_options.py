"""Every option of every group composes, builds and takes a step; a new yaml is tested by being there."""

import pytest
import torch
from composed import by_hydra
from conftest import QUIET, SMALL, STANDING, fitting, options

from dsa import build_model, compose, config, train
from dsa.backbones import Pass
from dsa.build import build_data
from dsa.config import config_dir, resolved
from dsa.training.objective import language_model_loss
from dsa.training.rehearsal import rehearse, rehearse_budget, rehearse_indexer

NEEDS_NETWORK = {"hub", "tinystories", "wikitext"}
NEEDS_A_PATH = {"text", "text_bpe"}
PRETRAINED = {"pretrained", "smollm2", "gemma3_270m"}  # they train in tests/training/test_pretrained_run.py
NEEDS_A_MODEL = {"stdlib_model", "text_model", "retrieval_model"}
OF_A_TRAINED_MODEL = ("pretrained", "adapt")
NEEDS_DEVICES = {"gpu", "ddp", "fsdp"}
LARGE = {"small", "medium", "large"}
LONG = {"retrieval": 512, "retrieval_bpe": 512}  # sentences take more tokens than a short row has
SLOW = {"stdlib_bpe", "retrieval_bpe"}
PARTS = [
    (group, name)
    for group in ("indexer", "pattern", "selector", "precision")
    for name in options(group)
    if name not in STANDING
]
# conf/study belongs to sweep.py and is tested in tests/study.
GROUPS = sorted(path.name for path in config_dir().iterdir() if path.is_dir() and path.name != "study")


@pytest.mark.slow
@pytest.mark.parametrize("group", GROUPS)
def test_every_option_says_in_its_first_line_what_it_is_and_composes(group):
    assert options(group)
    for name in options(group):
        text = (config_dir() / group / f"{name}.yaml").read_text()
        first = text.splitlines()[1 if text.startswith("# @package") else 0]
        assert first.startswith("# ") and len(first) > 15, name
        model = ["model=pretrained", "model.path=folder"] if name in NEEDS_A_MODEL | {"pretrained"} else []
        overrides = [*(one for one in model if group != "model" or "path" in one), f"{group}={name}"]
        cfg = by_hydra(overrides)
        assert resolved(cfg) == resolved(config.compose(overrides))
        assert cfg.choices.get(group) == name


@pytest.mark.slow
@pytest.mark.parametrize(("group", "name"), PARTS, ids=lambda value: value)
def test_every_indexer_pattern_selector_and_precision_passes_a_rehearsal_and_trains_a_step(group, name):
    spec = compose([*SMALL, *fitting(group, name), *(["selector.k=8"] if group == "precision" else [])])
    rehearse_budget(spec)
    if spec.uses_indexer:
        rehearse_indexer(spec)
    rehearse(spec, build_data(spec))
    take_a_step(spec)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=[pytest.mark.slow] if n in SLOW else [])
        for n in options("data")
        if n not in NEEDS_NETWORK | NEEDS_A_PATH | NEEDS_A_MODEL
    ],
)
@pytest.mark.usefixtures("outputs")
def test_every_local_data_set_trains_a_step(name):
    small = [override for override in SMALL if override != "data=mqar"]
    length = [f"seq_len={LONG[name]}"] if name in LONG else []
    take_a_step(compose([*small, *length, f"data={name}"]))


@pytest.mark.parametrize("name", sorted(NEEDS_A_PATH))
def test_ones_own_text_trains_a_step(name, tmp_path):
    (tmp_path / "book.txt").write_text("the quick brown fox jumps over the lazy dog\n" * 400)
    small = [override for override in SMALL if override != "data=mqar"]
    own = [f"data={name}", f"data.path={tmp_path / 'book.txt'}", f"cache_dir={tmp_path / 'cache'}", "seq_len=16"]
    if name == "text_bpe":
        own.append("data.source.tokenizer.vocab_size=260")
    take_a_step(compose([*small, *own]))


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.slow] if n in LARGE else []) for n in options("model") if n not in PRETRAINED],
)
def test_every_model_trains_a_step(name):
    batch = ["data=mqar", "data.batch_size=1", "data.eval_batches=1", "seq_len=64"]
    few = ["model.layers=2"] if name in LARGE else []  # of the same kind as all others
    take_a_step(compose([f"model={name}", *batch, *few]))


def take_a_step(spec):
    """One optimiser step on both losses; the weights that should move do."""
    data = build_data(spec)
    model = build_model(spec, data.vocab_size)
    optimizer = spec.optimizer.make()([{"params": list(model.parameters()), "lr": 1e-2}])
    batch = data.batch("sparse", 0)
    logits, losses = model.run(batch.tokens, Pass(teach=True, progress=0.5, step=1))
    torch.stack([language_model_loss(logits, batch.targets), *losses.values()]).sum().backward()
    watched = [model.to_logits.weight, *model.groups()["indexers"][:1]]
    before = [parameter.detach().clone() for parameter in watched]
    optimizer.step()
    for parameter, old in zip(watched, before, strict=True):
        assert parameter.isfinite().all()
        assert not torch.equal(parameter, old)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("group", "name"),
    [
        (group, name)
        for group in ("recipe", "objective", "optimizer", "logger", "callbacks", "trainer", "memory", "experiment")
        for name in options(group)
        if name not in NEEDS_DEVICES and (group != "recipe" or name not in OF_A_TRAINED_MODEL)
    ],
    ids=lambda value: value,
)
def test_every_way_to_train_and_record_makes_a_whole_run(group, name, outputs):
    small = [o for o in SMALL if o != "data=mqar" or group != "experiment"]
    result = train(compose([*QUIET, *small, "steps=6", f"output_dir={outputs}", f"{group}={name}"]))
    assert result.status == "finished"
    assert result.val_loss is not None


@pytest.mark.parametrize("name", OF_A_TRAINED_MODEL)
def test_a_warm_up_needs_a_model_that_is_trained(name):
    with pytest.raises(ValueError, match=r"recipe.warmup.steps = 100: a warm-up needs a model that is trained already"):
        compose([f"recipe={name}"])


@pytest.mark.parametrize("name", sorted(NEEDS_DEVICES))
def test_trainers_for_several_devices_are_told_apart_only_here(name):
    assert compose([f"trainer={name}"]).trainer.devices >= 1
