"""A language-model loss in chunks of tokens: the gradients of the whole one, without the logits of all tokens."""

import pytest
import torch
from backbones.toy import GroupedQueries
from conftest import QUIET, SMALL

from dsa import build_model, compose
from dsa.backbones import Memory, Pass
from dsa.backbones.memory import losses_in_chunks, token_losses
from dsa.bench.__main__ import main
from dsa.bench.memory import measure
from dsa.data import IGNORE, Batch
from dsa.judging.speed import peak_megabytes
from dsa.training.assemble import one_step
from dsa.training.execute import train
from dsa.training.objective import AskedKL, GradientKL, losses_of

CHUNKS = [Memory(chunk=7), Memory(checkpoint=True, chunk=7), Memory(checkpoint=True, offload=True, chunk=96)]
WHOLE = Memory()


def some(vocab=64, time=48):
    """Rows of which a third of the tokens is asked nothing."""
    tokens = torch.randint(vocab, (2, time + 1), generator=torch.Generator().manual_seed(0))
    return Batch(tokens[:, :-1], tokens[:, 1:].masked_fill(tokens[:, 1:] % 3 == 0, IGNORE))


def built(*settings, vocab=64):
    return build_model(compose([*SMALL, "pattern=causal", "selector.k=8", *settings]), vocab).train()


def taught(model, batch, way, how):
    """Losses and gradients of a step."""
    model.save_memory(way)
    model.train().zero_grad()
    with model.memory.saving():
        loss, others = losses_of(model, batch, how)
    torch.stack([loss, *others.values()]).sum().backward()
    return [loss.detach(), *others.values()], {
        name: p.grad for name, p in model.named_parameters() if p.grad is not None
    }


@pytest.mark.parametrize(("way", "ops", "sparse"), [
    (CHUNKS[0], "auto", True), (CHUNKS[0], "reference", True), (CHUNKS[1], "blocked", True), (CHUNKS[2], "auto", True),
    (CHUNKS[2], "auto", False),
])  # fmt: skip
def test_losses_and_gradients_are_those_of_the_whole(way, ops, sparse):
    model, batch, how = built(f"ops={ops}"), some(), Pass(sparse=sparse, teach=sparse)
    losses, wanted = taught(model, batch, WHOLE, how)
    found, gradients = taught(model, batch, way, how)
    torch.testing.assert_close(found, losses, rtol=1e-6, atol=1e-6)
    assert gradients.keys() == wanted.keys() and gradients["to_logits.weight"].any()
    for name, gradient in wanted.items():
        torch.testing.assert_close(gradients[name], gradient, rtol=1e-4, atol=1e-6, msg=name)


def test_a_token_has_the_loss_that_it_has_in_the_whole_and_what_is_not_asked_none():
    torch.manual_seed(0)
    head, states, targets = torch.nn.Linear(8, 30), torch.randn(2, 17, 8), some(30, 17).targets
    with torch.no_grad():
        wanted = token_losses(head(states), targets)
        for chunk in (1, 5, 34, 100):
            found = losses_in_chunks(head, states, targets, chunk)
            torch.testing.assert_close(found, wanted)
    assert not found[targets == IGNORE].any() and found[targets != IGNORE].all()


def test_no_token_has_a_loss_that_depends_on_later_ones():
    model, batch, told = built(), some(), []
    model.save_memory(Memory(chunk=7))
    for tokens in (batch.tokens, torch.cat([batch.tokens[:, :30], batch.tokens[:, 30:].flip(1)], 1)):
        with torch.no_grad():
            model.run(tokens, Pass(targets=batch.targets, told=told.append))
    assert told[0][:, :30].equal(told[1][:, :30]) and not told[0][:, 30:].equal(told[1][:, 30:])


def test_logits_of_all_tokens_are_never_held():
    """At 64 bytes a hidden state and 8,192 a row of logits they are most of what a step holds."""
    tokens, peaks = some(2048, 1024).tokens, []
    model = built("seq_len=1024", vocab=2048)
    for chunk in (None, 64):
        model.save_memory(Memory(chunk=chunk))
        peaks.append(peak_megabytes(lambda: one_step(model, tokens, True, learns=True), tokens.device))
    logits = tokens.numel() * 2048 * 4 / 2**20
    assert peaks[0] > 2 * logits and peaks[1] < 1.2 * logits


@pytest.mark.parametrize("kind", [AskedKL, GradientKL])
def test_objectives_that_read_the_loss_read_it_in_chunks(kind, monkeypatch):
    model, batch, how, found = built(), some(), Pass(), []
    for way in (WHOLE, CHUNKS[0]):
        model.save_memory(way)
        found.append(kind(1.0, True).emphasis(model, batch, how))
    part = "rows" if kind is AskedKL else "upstream"
    for site in range(2):
        one, other = (getattr(each[site], part) for each in found)
        assert one.any() and one.shape == other.shape
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-8)


def test_who_wants_logits_gets_them():
    model, batch = built(), some()
    wanted = model.run(batch.tokens, Pass()).logits
    model.save_memory(Memory(chunk=7))
    assert model.run(batch.tokens, Pass()).logits.equal(wanted)


def test_a_backbone_that_cannot_is_refused_and_so_is_what_is_no_length():
    with pytest.raises(ValueError, match=r"^memory\.chunk = 4: GroupedQueries cannot .* memory\.chunk=null"):
        GroupedQueries(64, 32, 2).save_memory(Memory(chunk=4))
    with pytest.raises(ValueError, match=r"^memory\.chunk = 0: give a whole number from 1"):
        compose([*SMALL, "memory.chunk=0"])


def test_a_pretrained_model_takes_its_loss_in_chunks_where_its_head_says_all():
    models = pytest.importorskip("backbones.tiny_models", reason="the extra dsa[pretrained] is not installed")
    from dsa.backbones.pretrained.model import Adopted

    model, batch = Adopted(models.made(models.CONFIGS["llama"]())), some()
    losses, wanted = taught(model, batch, WHOLE, Pass(sparse=False))
    for way in CHUNKS:
        found, gradients = taught(model, batch, way, Pass(sparse=False))
        torch.testing.assert_close(found, losses, rtol=1e-6, atol=1e-6)
        assert gradients.keys() == wanted.keys()
        for name, gradient in wanted.items():
            torch.testing.assert_close(gradients[name], gradient, rtol=1e-4, atol=1e-6, msg=name)
    capped = Adopted(models.made(models.CONFIGS["gemma2"]()))
    with pytest.raises(ValueError, match=r"^memory\.chunk = 7: Gemma2ForCausalLM cannot take its loss in chunks"):
        capped.save_memory(CHUNKS[0])


@pytest.mark.slow
def test_the_bench_measures_what_each_way_saves(capsys, tmp_path):
    main(f"memory --lengths 256 --k 16 --ways none,checkpoint+chunked --json {tmp_path / 'rows.json'}".split())
    assert "checkpoint+chunked" in capsys.readouterr().out and (tmp_path / "rows.json").exists()
    none, saved = measure([256], 16, "h1d8", "tiny", 1, "auto", "cpu", [["none"], ["checkpoint", "chunked"]])
    assert saved["peak_mb"] < 0.9 * none["peak_mb"] and saved["dense_peak_mb"] < 0.9 * none["dense_peak_mb"]


@pytest.mark.slow
def test_a_run_in_chunks_is_the_same_run_and_names_the_same_artifacts(tmp_path):
    settings = [*SMALL, *QUIET, "seq_len=32", "dtype=fp32", "pattern=causal", "selector.k=6", "indexer=h2d8",
                "recipe.dense.steps=3", "recipe.warmup.steps=2", "recipe.sparse.steps=3"]  # fmt: skip
    one, other = (train(compose([*settings, f"memory={name}", f"output_dir={tmp_path / name}"]))
                  for name in ("none", "chunked"))  # fmt: skip
    assert one.run_id == other.run_id
    assert one.status == other.status == "finished"
    assert other.val_loss == pytest.approx(one.val_loss, rel=1e-5)
