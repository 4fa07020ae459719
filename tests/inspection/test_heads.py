"""What heads do to the keys: counted against plain loops, changed weights against a changed model, and the command."""

import csv
import json

import pytest
import torch
from conftest import QUIET, SMALL
from inspection.test_selection import EVERYTHING, observed

from dsa import build_model, compose, load_run, ops, train
from dsa.analysis.__main__ import main
from dsa.build import build_data
from dsa.inspection.head_sums import PLACES, Layer
from dsa.inspection.heads import heads_of
from dsa.inspection.losses import mean_loss
from dsa.inspection.query_blocks import query_blocks
from dsa.inspection.reranked import reranked
from dsa.inspection.reweighted import as_it_is, changed, clamped, head, reweighted, weighted_routers
from dsa.judging import probe
from dsa.ops import IndexFeatures
from dsa.precision import Integer

LENGTH, K = 24, 5


def features(seed=0, heads=2):
    """Index features of random heads, whose weights have both signs."""
    draw = torch.Generator().manual_seed(seed)
    queries = torch.randn(1, 1, LENGTH, heads, 4, generator=draw)
    keys = torch.randn(1, 1, LENGTH, 4, generator=draw)
    return IndexFeatures(queries, keys, torch.randn(1, 1, LENGTH, heads, generator=draw))


def seen_with(index):
    """A layer that kept what these features rank first."""
    limit = torch.arange(1, LENGTH + 1).clamp(max=K)[None, None]
    chosen = ops.select(index, EVERYTHING, limit)
    return observed(None, LENGTH, K)._replace(cast=index, features=index, scorer=index, selection=chosen)


def counted(index, asked=None):
    layer = Layer()
    layer.add(seen_with(index), torch.zeros(LENGTH, dtype=torch.bool) if asked is None else asked)
    return layer


def terms_of(index, weights, t):
    """What each head adds to the scores of a query's earlier keys."""
    return weights[t][:, None] * (index.queries[0, 0, t] @ index.keys[0, 0, : t + 1].T).clamp(min=0)


def by_hand(index, weights):
    """Of each contested query the terms of its earlier keys, head by head, and the keys kept with these weights."""
    out = {}
    for t in range(K, LENGTH):
        terms = terms_of(index, weights, t)
        total = terms.sum(0)
        kept = sorted(range(t + 1), key=lambda s: (-float(total[s]), s))[:K]
        out[t] = terms, set(kept)
    return out


def mean(values):
    values = [float(value) for value in values]
    return sum(values) / len(values) if values else None


def test_shares_and_masses_are_those_of_plain_loops():
    index, asked = features(), torch.arange(LENGTH) % 3 == 0
    layer, weights = counted(index, asked), index.weights[0, 0]
    (block,) = query_blocks(seen_with(index))
    attention, best = block.attention[0], block.best[0]
    own, none_below = by_hand(index, weights), by_hand(index, weights.clamp(min=0))

    def mass(kept, queries=None):
        return mean(attention[t, list(kept[t][1])].sum() for t in (kept if queries is None else queries))

    told = layer.own.shares()
    assert told["mass"] == pytest.approx(mass(own)) and told["mass_asked"] == pytest.approx(
        mass(own, [t for t in own if asked[t]])
    )
    assert told["mass_clamped"] == pytest.approx(mass(none_below))
    assert told["mass_absolute"] == pytest.approx(mass(by_hand(index, weights.abs())))
    assert told["oracle_mass"] == pytest.approx(mean((attention[t] * best[t]).sum() for t in own))
    assert told["all_negative"] == pytest.approx(mean((weights[t] < 0).all() for t in own))
    assert told["some_negative"] == pytest.approx(mean((weights[t] < 0).any() for t in own))
    assert told["changed"] == pytest.approx(mean(len(none_below[t][1] - own[t][1]) / K for t in own))
    p, given = attention.double(), {t: own[t][0].sum(0).double().log_softmax(-1) for t in own}
    kl = mean((p[t, : t + 1] * (p[t, : t + 1].log() - given[t])).sum() for t in own)
    assert told["kl"] == pytest.approx(kl, rel=1e-4)
    for number, sums in layer.heads.items():
        told = sums.shares()
        signs = {t: bool(weights[t, number] < 0) for t in own}
        clipped = {t: (index.queries[0, 0, t, number] @ index.keys[0, 0, : t + 1].T) <= 0 for t in own}
        assert told["negative"] == pytest.approx(mean(signs.values()))
        assert told["clipped"] == pytest.approx(mean(x for t in own for x in clipped[t]))
        assert told["clipped_wanted"] == pytest.approx(
            mean(clipped[t][s] for t in own for s in range(t + 1) if best[t, s])
        )
        assert told["clipped_attention"] == pytest.approx(mean((attention[t, : t + 1] * clipped[t]).sum() for t in own))
        assert told["mass_negative"] == pytest.approx(mass(own, [t for t in own if signs[t]]))
        assert told["mass_positive_asked"] == pytest.approx(mass(own, [t for t in own if asked[t] and not signs[t]]))
        every = [terms_of(index, weights, t) for t in range(LENGTH)]  # of all queries
        mine = sum(float(terms[number].abs().sum()) for terms in every)
        assert told["of_all_scores"] == pytest.approx(mine / sum(float(terms.abs().sum()) for terms in every))
        below = sum(float(terms[number].clamp(max=0).abs().sum()) for terms in every)
        assert told["negative_score"] == pytest.approx(below / mine)
        for name, changed_to in (("without", 0.0), ("clamped", weights[:, number].clamp(min=0))):
            changed_weights = weights.clone()
            changed_weights[:, number] = changed_to
            assert told[f"mass_{name}"] == pytest.approx(mass(by_hand(index, changed_weights)))
        alone = torch.zeros_like(weights)
        alone[:, number] = weights[:, number]
        assert told["mass_alone"] == pytest.approx(mass(by_hand(index, alone)))
        assert torch.equal(torch.cat(layer.weights[number]), weights[:, number])


def test_a_negative_weight_puts_matching_keys_below_all_clipped_ones_which_tie():
    numbers = torch.tensor([-1.0, 5.0, -1.0, -1.0, -1.0, -1.0, 4.0] + [-1.0] * (LENGTH - 7))
    index = IndexFeatures(
        torch.ones(1, 1, LENGTH, 1, 1), numbers.reshape(1, 1, LENGTH, 1), -torch.ones(1, 1, LENGTH, 1)
    )
    layer = counted(index)
    told, single = layer.own.shares(), layer.heads[0].shares()
    assert (single["negative"], single["negative_score"], single["tied_positive"]) == (1.0, 1.0, None)
    kept = seen_with(index).selection.positions[0, 0]
    assert kept[-1].tolist() == [0, 2, 3, 4, 5], "the earliest of the clipped keys"
    chosen = LENGTH - K
    assert told["tied"] == single["tied_negative"] == (chosen - 2) / chosen, "queries 5 and 6 have no clipped key more"
    places = {name: sums.shares() for name, sums in layer.places.items()}
    assert sum(places[name]["lowered"] for name in PLACES) == pytest.approx(1)
    assert places["first token"]["lowered"] == 0 and places["far"]["lowered"] > 0.5


def test_places_divide_the_earlier_keys_of_contested_queries():
    layer = counted(features())
    shares = {name: sums.shares()["keys"] for name, sums in layer.places.items()}
    pairs, queries = sum(t + 1 for t in range(K, LENGTH)), LENGTH - K
    assert shares["first token"] == shares["itself"] == pytest.approx(queries / pairs)
    assert shares["nearest"] == pytest.approx(queries * (K - 1) / pairs)  # the query itself is of its budget
    assert sum(shares.values()) == pytest.approx(1)
    let_in = sum(sums.parts["let_in"][0] for sums in layer.places.values())
    assert let_in == sum(sums.parts["put_out"][0] for sums in layer.places.values()) > 0


def test_other_weights_are_those_of_a_format_of_integers_too():
    index = features()
    everything = slice(0, LENGTH), slice(0, LENGTH)
    assert torch.equal(head(0, clamped)(index.weights)[..., 1], index.weights[..., 1])
    alone = [reweighted(index, head(n, as_it_is, torch.zeros_like)).scores(*everything) for n in (0, 1)]
    assert torch.allclose(sum(alone), index.scores(*everything), atol=1e-6)
    rounded = Integer(bits=8, scale="row").cast(index)
    assert rounded.integers is not None
    doubled = reweighted(rounded, lambda weights: 2 * weights)
    assert torch.allclose(doubled.scores(*everything), 2 * rounded.scores(*everything))
    exact = rounded._replace(integers=None)
    assert torch.allclose(doubled._replace(integers=None).scores(*everything), 2 * exact.scores(*everything))


@pytest.mark.slow
def test_a_model_without_a_head_is_one_whose_weights_are_zero():
    spec = compose([*SMALL, "indexer=h2d8", "pattern=causal", "selector.k=4", "dtype=fp32"])
    data = build_data(spec)
    model = build_model(spec, data.source.vocab_size).eval()
    batches = list(data.eval_loader())
    with torch.no_grad():
        model.to_logits.weight.mul_(30)
        for router in model.routers:
            router.indexer.to_weight.weight.mul_(30)
    seen = probe.observed(model, batches[0].tokens[:1])
    routers, own = weighted_routers(model, seen, "made up"), mean_loss(model, batches)
    with reranked(routers[:1], changed(head(1, torch.zeros_like))):
        without = mean_loss(model, batches)
    assert mean_loss(model, batches) == own
    with torch.no_grad():
        model.routers[0].indexer.to_weight.weight[1] = 0
    assert mean_loss(model, batches) == pytest.approx(without, rel=1e-6)
    assert abs(without - own) > 1e-4


@pytest.mark.slow
def test_the_command_leaves_tables_and_a_figure(outputs, tmp_path, capsys):
    common = [*SMALL, *QUIET, "pattern=causal", "selector.k=8", "recipe.dense.steps=2", "recipe.warmup.steps=2",
              "judge=swap", "dtype=fp32", f"output_dir={outputs}"]  # fmt: skip
    runs = [train(compose([*common, "indexer=h2d8", f"indexer.weight={name}"])) for name in ("signed", "positive")]
    assert main(["heads", *(run.folder for run in runs), "--losses", "heads", "--to", str(tmp_path)]) == 0
    assert runs[0].run_id in capsys.readouterr().out
    signed, positive = json.loads((tmp_path / "heads.json").read_text())
    assert len(signed["heads"]) == 4 and len(signed["places"]) == 8
    assert len(signed["losses"]) == 1 + (2 + 4) * 3, "in all layers and in each of two, of all heads and of each of two"
    assert signed["losses"][0]["loss"] == pytest.approx(runs[0].swap_val_loss, rel=1e-5)
    assert any(row["negative"] > 0.1 for row in signed["heads"])
    assert {row["negative"] for row in positive["heads"]} == {0.0}
    unchanged = [row for row in positive["losses"] if row["change"] != "without the head"]
    assert {row["difference"] for row in unchanged} == {0.0}
    for name in ("layers", "heads", "places", "losses"):
        with (tmp_path / f"{name}.csv").open() as file:
            assert len(list(csv.DictReader(file))) == len(signed[name]) + len(positive[name])
    assert all((tmp_path / f"{run.run_id}.png").exists() for run in runs)
    assert main(["heads", train(compose([*common, "indexer=ultra_light"])).folder]) == 2
    error = capsys.readouterr().err
    assert "no weights of heads say" in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ("selector.k=8 indexer=ultra_light", "no weights of heads say"),
        ("selector=window selector.k=8", "no weights of heads say"),
        ("selector.k=8 indexer=block_mean indexer.unit=4", "no weights of heads say"),
        ("selector.k=8 indexer=hisa indexer.block=8", "no weights of heads say"),
        ("selector.k=8 indexer=multi_scale indexer.reach=8 indexer.far=12 indexer.block=4", "no weights of heads say"),
        ("selector.k=64", "keeps every earlier key"),
        ("selector=adaptive_entropy", "give a run with a fixed budget"),
        ("selector.k=8 pattern=adaptive", "give a run with a fixed pattern"),
        ("selector.k=8 indexer=deepseek_v32 indexer.rotary_dim=4 indexer.heads=2 indexer.dim=8", None),
    ],
)
def test_what_ranks_keys_by_something_else_is_refused_in_a_sentence(settings, told):
    spec = compose([*SMALL, "dtype=fp32", "pattern=causal", *settings.split()])
    data = build_data(spec)
    model = build_model(spec, data.source.vocab_size).eval()
    seen = probe.observed(model, next(iter(data.eval_loader())).tokens[:1])
    if told is None:
        assert len(weighted_routers(model, seen, "made up")) == len(model.sites)
    else:
        with pytest.raises(ValueError, match=told):
            weighted_routers(model, seen, "made up")


@pytest.mark.slow
def test_a_run_whose_scores_are_integers_is_told_as_it_is(outputs):
    run = train(compose([*SMALL, *QUIET, "pattern=local_global", "pattern.window=4", "selector.k=8", "indexer=h2d8",
                         "precision=int8", "recipe.dense.steps=2", "recipe.warmup.steps=2", "judge=swap", "dtype=fp32",
                         f"output_dir={outputs}"]))  # fmt: skip
    found = heads_of(run.folder)
    model = load_run(run.folder)
    assert found["losses"][0]["loss"] == pytest.approx(run.swap_val_loss, rel=1e-5)
    assert len(found["layers"]) == len(model.sites)
