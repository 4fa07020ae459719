"""A backbone of a user's own goes everywhere: grouped queries and a scale of its own, by the makers as they are."""

import pytest
import torch
from backbones.toy import SCALE, GroupedQueries
from conftest import QUIET, fitting

from dsa import build_model, compose, load_run, train
from dsa.artifacts.store import PLACES
from dsa.backbones import Backbone, Pass, Site
from dsa.backbones.attention import attend
from dsa.backbones.contracts import Cache
from dsa.backbones.transformer import KV
from dsa.build import build_backbone, build_data, build_indexers
from dsa.judging.checkpoints import fit_weights, read_weights
from dsa.judging.probe import probe
from dsa.ops import Rotation, TrueAttention, reference
from dsa.ops.reference import to_mask
from dsa.targets import TargetRefused
from dsa.training.log import read_rows

TOY = [
    "model._target_=backbones.toy.GroupedQueries", "allow_targets=[backbones]", "model.d_model=32", "model.layers=2",
    *(f"~model.{name}" for name in ("heads", "ff", "conv", "rope_base", *KV)),
    "data=mqar", "data.batch_size=4", "data.eval_batch_size=4", "data.eval_batches=2", "seq_len=32", "dtype=fp32",
    "pattern=causal", "selector.k=6", "indexer=h2d8", *QUIET,
]  # fmt: skip
LOSS = "train/indexer_loss"


@pytest.fixture
def tokens():
    return torch.randint(64, (2, 32), generator=torch.Generator().manual_seed(0))


def build(*overrides):
    return build_model(compose([*TOY, *overrides]), 64)


def attention(seen, dense):
    """Probabilities of every head, written out."""
    keys = seen.keys.repeat_interleave(2, 1)
    logits = seen.queries @ keys.mT * SCALE
    time = logits.shape[-1]
    mask = torch.ones(time, time, dtype=torch.bool).tril() if dense else to_mask(seen.selection, time)
    return logits.masked_fill(~mask, -torch.inf).softmax(-1).masked_fill(~mask, 0.0)


@pytest.mark.parametrize("name", ["minimax_m3", "moba", "quest"])
def test_an_indexer_of_groups_chooses_for_each_key_value_head(tokens, name):
    seen = []
    model = build(*fitting("indexer", name), "selector.k=10")
    with torch.no_grad():
        losses = model.run(tokens, Pass(teach=True, observe=seen.append)).losses
    for layer in seen:
        assert layer.cast.groups == layer.selection.positions.shape[1] == layer.keys.shape[1] == 2
        assert not torch.equal(layer.selection.positions[:, 0], layer.selection.positions[:, 1])
        target = TrueAttention(layer.queries, layer.keys, layer.logsumexp, 2, scale=SCALE)
        assert reference.indexer_loss(layer.cast, target, layer.selection) > 0
    assert losses["indexer"] > 0


@pytest.mark.parametrize("ops", ["auto", "reference", "blocked"])
@pytest.mark.parametrize("selector", ["topk", "oracle", "window"])
def test_sites_attend_with_their_own_scale(tokens, ops, selector):
    seen, inputs = [], []
    model = build(f"ops={ops}", f"selector={selector}", "selector.k=6")
    with torch.no_grad():
        model.run(tokens, Pass(teach=selector == "topk", observe=seen.append, watch=inputs.append))
    for site, layer in zip(inputs, seen, strict=True):
        assert site.site.scale == layer.scale == SCALE
        assert site.queries.shape[1] == 4 and site.keys.shape[1] == 2
        sparse, dense = attention(layer, dense=False), attention(layer, dense=True)
        logits = (layer.queries @ layer.keys.repeat_interleave(2, 1).mT * SCALE).masked_fill(sparse == 0, -torch.inf)
        torch.testing.assert_close(layer.logsumexp, logits.logsumexp(-1))
        if selector == "oracle":
            best = dense.sum(1).topk(6).values.sum(-1)
            kept = (dense.sum(1) * (sparse.sum(1) > 0)).sum(-1)
            torch.testing.assert_close(kept, best)


def test_a_budget_of_the_whole_length_equals_dense_attention(tokens):
    model = build("selector.k=32")
    dense = model.run(tokens, Pass(sparse=False)).logits
    torch.testing.assert_close(model(tokens), dense)
    for router in model.routers:
        router.selector.k = 31
    torch.testing.assert_close(model(tokens)[:, :31], dense[:, :31], rtol=1e-5, atol=5e-5)


@pytest.mark.parametrize("queries", [20, 7], ids=["all", "the last ones"])
def test_a_site_with_a_cap_attends_densely_with_it(queries):
    torch.manual_seed(0)
    q, k, v = torch.randn(2, 4, queries, 8) * 3, torch.randn(2, 2, 20, 8), torch.randn(2, 2, 20, 8)
    site, x = Site(0, 32, 4, 2, 8, cap=0.7), torch.zeros(2, queries, 32)
    cache = Cache()
    for name, before in (("key", k), ("value", v)):
        cache.extend(name, 0, before[:, :, : 20 - queries], 2)
    new, rotary = slice(20 - queries, 20), Rotation(queries, 1e4, x.device)
    out, losses = attend(site, None, x, q, k[:, :, new], v[:, :, new], rotary, Pass(sparse=False, cache=cache))
    logits = 0.7 * (q @ k.repeat_interleave(2, 1).mT * 8**-0.5 / 0.7).tanh()
    seen = torch.ones(queries, 20, dtype=torch.bool).tril(20 - queries)
    torch.testing.assert_close(out, logits.masked_fill(~seen, -torch.inf).softmax(-1) @ v.repeat_interleave(2, 1))
    assert losses == {}


def test_the_scale_of_a_site_decides_what_its_indexer_learns(tokens):
    losses = []
    for scale in (SCALE, 2 * SCALE):
        model = build("selector.k=31", f"+model.scale={scale}")
        losses.append(model.run(tokens, Pass(teach=True)).losses["indexer"].item())
    assert abs(losses[0] - losses[1]) > 1e-3


def test_the_probe_measures_with_the_scale_of_the_site(tokens):
    seen = []
    model = build().eval()
    model.run(tokens, Pass(observe=seen.append))
    asked = torch.zeros(tokens.shape, dtype=torch.bool)
    asked[0, [3, 30]] = True
    for layer, found, of_asked in zip(seen, probe(model, tokens), probe(model, tokens, asked), strict=True):
        dense, kept = attention(layer, dense=True), to_mask(layer.selection, 32)
        assert found.mass == pytest.approx((dense * kept).sum(-1).mean().item(), abs=1e-5)
        p = dense.sum(1) / 4
        index = layer.cast.scores(slice(0, 32), slice(0, 32))[:, 0]
        index = index.masked_fill(torch.ones(32, 32, dtype=torch.bool).triu(1), -torch.inf).log_softmax(-1)
        kl = torch.where(p > 0, p * (p.log() - index), 0.0).sum(-1)
        assert found.kl == pytest.approx(kl.mean().item(), abs=1e-4)
        assert of_asked.kl_asked == pytest.approx(kl[0, [3, 30]].mean().item(), abs=1e-4)
        mass = (dense * kept).sum(-1).mean(1)
        assert of_asked.mass_asked == pytest.approx(mass[0, [3, 30]].mean().item(), abs=1e-5)
        assert of_asked.mean_k_asked == kept.sum(-1).float().mean(1)[0, [3, 30]].mean().item() != of_asked.mean_k
        assert found.mass_asked is None and found.kl_asked is None and found.mean_k_asked is None


def test_a_class_that_is_no_backbone_is_refused():
    with pytest.raises(TargetRefused, match=r"give a subclass of dsa\.backbones\.Backbone"):
        build("model._target_=backbones.toy.Layer")


def test_a_backbone_that_does_not_say_its_size_is_told_how():
    class Silent(Backbone):
        def run(self, tokens, how):
            raise AssertionError

    with pytest.raises(ValueError, match=r"Silent has no setting ff and no heads.*override its classmethod `size`"):
        Silent.size({"layers": 2, "d_model": 32})
    assert GroupedQueries.size({"layers": 2, "d_model": 32})[:4] == (2, 32, 0, 4)


@pytest.mark.slow
def test_base_cohort_joint_training_and_judgement_are_made_of_it(outputs):
    spec = compose(
        [*TOY, "recipe.dense.steps=3", "recipe.warmup.steps=3", "recipe.sparse.steps=3", f"output_dir={outputs}"]
    )
    result = train(spec)
    assert result.val_loss is not None and result.swap_val_loss is not None and result.delta_loss is not None
    assert len(result.selection["layers"]) == 2
    for kind in ("base", "indexers", "joint"):
        assert (outputs / PLACES[kind] / result.artifacts[kind] / "weights.ckpt").exists()
    first = float(read_rows(outputs / PLACES["indexers"] / result.artifacts["indexers"] / "metrics.csv")[0][LOSS])
    assert first == pytest.approx(first_loss(spec, outputs / PLACES["base"] / result.artifacts["base"]), abs=1e-4)
    model = load_run(result.folder, allow_targets=["backbones"])
    assert isinstance(model, GroupedQueries)
    batch = next(iter(build_data(spec).eval_loader()))
    assert model(batch.tokens).isfinite().all()


@torch.no_grad()
def first_loss(spec, base):
    """What the indexers' loss is before the warm-up's first step, written out."""
    data, inputs, losses = build_data(spec), [], []
    model = build_backbone(spec, data.vocab_size)
    fit_weights(model, read_weights(base), base)
    model.run(data.batch("warmup", 0).tokens, Pass(sparse=False, watch=inputs.append))
    for indexer, site in zip(build_indexers(spec, model), inputs, strict=True):
        future = torch.ones(32, 32, dtype=torch.bool).triu(1)
        logits = site.queries @ site.keys.repeat_interleave(2, 1).mT * SCALE
        p = logits.masked_fill(future, -torch.inf).softmax(-1).mean(1)
        index = indexer(site.hidden, site.rotary).scores(slice(0, 32), slice(0, 32))[:, 0]
        index = index.masked_fill(future, -torch.inf).log_softmax(-1)
        losses.append(torch.where(p > 0, p * (p.log() - index), 0.0).sum(-1).mean())
    return torch.stack(losses).mean().item()
