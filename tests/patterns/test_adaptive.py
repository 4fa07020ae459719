"""A pattern that follows the input: by what it is decided, and that it never looks ahead."""

from pathlib import Path

import pytest
import torch
from conftest import QUIET, SMALL
from interrupted import cut_and_resumed

from dsa import build_model, compose, load_run, train
from dsa.backbones import Pass
from dsa.backbones.contracts import Cache
from dsa.judging.cost import flops
from dsa.training.dashboard import final_values
from dsa.training.log import read_rows

ADAPTIVE = [
    *SMALL, "indexer=h1d8", "pattern=adaptive", "pattern.patterns.near.window=4", "pattern.patterns.near.budget=9",
    "pattern.patterns.all.budget=9", "pattern.patterns.sinks.window=4", "pattern.patterns.sinks.budget=9",
]  # fmt: skip
PREFIX = ["pattern.prefix=20", "pattern.groups=2"]


def model_of(*overrides):
    """A model whose routers prefer this and that."""
    model = build_model(compose([*ADAPTIVE, *overrides]), 64).eval()
    for router in model.routers:
        torch.nn.init.normal_(router.pattern.chooser, generator=torch.Generator().manual_seed(router.site))
    return model


def tokens():
    return torch.randint(64, (3, 64), generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def entries(model, of, **how):
    found = {}
    model.run(of, Pass(chose=found.__setitem__, **how))
    return [found[layer].entry for layer in sorted(found)]


@pytest.mark.parametrize("own", [[], PREFIX], ids=["token", "prefix"])
@pytest.mark.parametrize("change", [19, 20, 21, 40])
def test_no_choice_depends_on_later_tokens(own, change):
    model, changed = model_of(*own), tokens()
    changed[:, change:] = (changed[:, change:] + 7) % 64
    for before, after in zip(entries(model, tokens()), entries(model, changed), strict=True):
        assert torch.equal(before[..., :change], after[..., :change])
    with torch.no_grad():
        assert torch.equal(model(tokens())[:, :change], model(changed)[:, :change])


def test_each_token_decides_for_itself():
    first, _ = entries(model_of(), tokens())
    assert first.shape == (3, 1, 64)
    assert all(len(row.unique()) == 3 for row in first[:, 0])


def test_a_prefix_decides_once_and_is_itself_shown_the_default():
    model = model_of(*PREFIX)
    for entry in entries(model, tokens()):
        assert entry.shape == (3, 2, 64)
        assert not entry[..., :20].any()
        assert torch.equal(entry[..., 20:], entry[..., 20:21].expand(-1, -1, 44))
    decided = torch.cat([entry[..., 20].flatten() for entry in entries(model, tokens())])
    assert len(decided.unique()) > 1
    for drawn in entries(model, tokens(), step=1, progress=0.0):
        assert not drawn[..., :20].any()
        assert torch.equal(drawn[..., 20:], drawn[..., 20:21].expand(-1, -1, 44)), "one draw a row"
    assert not entries(model, tokens()[:, :12])[0].any()


@pytest.mark.parametrize("own", [[], PREFIX], ids=["token", "prefix"])
def test_a_row_in_parts_is_decided_as_it_is_whole(own):
    model, cache, parts = model_of(*own), Cache(), []
    for part in tokens().split([7, 8, 30, 19], 1):
        parts.append(entries(model, part, cache=cache))
    for whole, *pieces in zip(entries(model, tokens()), *parts, strict=True):
        assert torch.equal(whole, torch.cat(pieces, -1))


@pytest.mark.parametrize("own", [[], PREFIX], ids=["token", "prefix"])
def test_the_language_model_loss_teaches_the_chooser_and_nothing_else_by_it(own):
    model = model_of(*own)
    model.run(tokens(), Pass()).logits.square().mean().backward()
    assert all(p.grad.abs().sum() > 0 for p in model.groups()["patterns"])
    named = model.named_parameters()
    mine = {name: p.grad.clone() for name, p in named if p.grad is not None and "chooser" not in name}
    chosen = model_of(*own)
    for router in chosen.routers:
        router.pattern.chooser.requires_grad_(False)
    chosen.run(tokens(), Pass()).logits.square().mean().backward()
    for name, p in chosen.named_parameters():
        assert p.grad is None or torch.equal(p.grad, mine[name])


@pytest.mark.parametrize("own", [[], PREFIX], ids=["token", "prefix"])
def test_a_budget_of_the_whole_length_is_dense_attention_and_backends_agree(own):
    with torch.no_grad():
        dense = model_of(*own, "selector.k=64")
        assert torch.equal(dense(tokens()), dense.run(tokens(), Pass(sparse=False)).logits)
        found = [model_of(*own, f"ops={ops}")(tokens()) for ops in ("auto", "blocked", "reference")]
    for other in found[1:]:
        torch.testing.assert_close(found[0], other, rtol=1e-4, atol=1e-5)


def test_deciding_is_counted():
    assert flops(model_of(), 64, 0.5)["select"] == 2 * (2 * 32 * 3 * 64)
    assert flops(model_of(*PREFIX), 64, 0.5)["select"] == 2 * (20 * 32 + 2 * 32 * 6)
    assert flops(model_of(*PREFIX), 20, 0.5)["select"] == 0


RUN = [
    *ADAPTIVE, *QUIET, "seq_len=32", "dtype=fp32", "recipe.dense.steps=2", "recipe.warmup.steps=2",
    "recipe.sparse.steps=6", "callbacks.checkpoint_every=2", "dense_control=false",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    "own", [[], ["pattern.prefix=8", "pattern.groups=2", "index_every=2"]], ids=["token", "prefix"]
)
def test_a_whole_run_goes_on_after_a_kill_to_the_same_weights_and_says_what_was_chosen(outputs, own, monkeypatch):
    whole = train(compose([*RUN, *own, f"output_dir={outputs}/whole"]))
    cut = cut_and_resumed([*RUN, *own, f"output_dir={outputs}/cut"], monkeypatch)
    assert cut.val_loss == whole.val_loss and cut.selection == whole.selection
    assert all(
        sum(group.values()) == pytest.approx(1) for layer in whole.selection["layers"] for group in layer["chosen"]
    )
    rows = read_rows(Path(whole.folder) / "metrics.csv")
    drawn = [row for row in rows if row["stage"] == "sparse" and row["kind"] == "train"]
    assert sum(float(drawn[-1][f"train/pattern_00_0_{name}"]) for name in ("near", "all", "sinks")) == pytest.approx(1)
    assert final_values(whole)["select/layer_00/group_0/near"] == whole.selection["layers"][0]["chosen"][0]["near"]
    assert load_run(whole.folder).groups()["patterns"]
