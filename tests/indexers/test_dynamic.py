"""Several indexers of which a picker takes one for each row: whose scores count, what is spent and learned."""

import math
from pathlib import Path

import pytest
import torch
from conftest import QUIET, SMALL
from interrupted import cut_and_resumed
from test_causality import assert_causal
from torch.utils.flop_counter import FlopCounterMode

from dsa import build_model, compose, load_run, ops, train
from dsa.backbones import Cache, Pass
from dsa.backbones.initial import draw_indexer
from dsa.build import build_data
from dsa.graph import graph_of
from dsa.judging.calibrate import calibrate
from dsa.judging.cost import flops
from dsa.ops import IndexFeatures, Mixed, Rotation, TrueAttention
from dsa.ops.reference import indexer_loss
from dsa.training.dashboard import final_values
from dsa.training.log import read_rows
from dsa.training.regret import lost_by_row, regret_loss

LENGTH, PREFIX = 64, 20
NAMES = ("h1d4", "h2d4", "h2d8")
OWN = [*SMALL, "indexer=dynamic", f"indexer.members=[{','.join(reversed(NAMES))}]", f"indexer.prefix={PREFIX}"]
CAUSAL = [*OWN, "pattern=causal", "selector.k=8"]
EVERY_MEMBER = pytest.mark.parametrize("number", range(3), ids=NAMES)


def tokens(rows=6):
    return torch.randint(64, (rows, LENGTH), generator=torch.Generator().manual_seed(0))


def model_of(*overrides, vocab=64):
    """A model whose routers expect this and that of each row, so that rows of a batch pick different members."""
    model = build_model(compose([*CAUSAL, *overrides]), vocab).eval()
    with torch.no_grad():
        for number, router in enumerate(model.routers):
            weight = router.indexer.picker.weight
            weight.copy_(3 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(number)))
    return model


def always(model, number):
    """The same model, every row of which picks one member."""
    with torch.no_grad():
        for router in model.routers:
            router.indexer.picker.weight.zero_()
            router.indexer.picker.bias.copy_(torch.ones(3).index_fill(0, torch.tensor(number), 0.0))
    return model


@torch.no_grad()
def observed(model, of, **how):
    seen, picked = [], {}
    model.run(of, Pass(observe=seen.append, picked=picked.__setitem__, **how))
    return seen, [picked[site].entry for site in sorted(picked)]


def alone(model, member):
    """The model with the routers' indexers replaced by one of their members."""
    for router in model.routers:
        router.indexer = router.indexer.member(member)
    return model


def test_a_fixed_choice_is_that_lightning_indexer_with_all_that_is_named_after_it():
    for weight in ("signed", "positive"):
        own = compose([*SMALL, "indexer=dynamic", "indexer.fixed=h2d32", f"indexer.weight={weight}"])
        other = compose([*SMALL, "indexer=h2d32", *([f"indexer.weight={weight}"] if weight == "positive" else [])])
        assert (own.indexer.node, own.indexer.label) == (other.indexer.node, other.indexer.label)
        assert graph_of(own, "x").hash == graph_of(other, "x").hash


@EVERY_MEMBER
@pytest.mark.parametrize("backend", ["auto", "blocked", "reference"])
def test_where_all_rows_pick_one_member_the_keys_are_that_indexers_and_before_the_defaults(number, backend):
    first, others = {}, {}
    for name, seen in (
        ("picked", observed(always(model_of(f"ops={backend}"), number), tokens())[0]),
        ("member", observed(alone(model_of(f"ops={backend}"), number), tokens())[0]),
        ("default", observed(alone(model_of(f"ops={backend}"), 2), tokens())[0]),
    ):
        first[name], others[name] = seen[0].selection, seen[0].cast.scores(slice(0, LENGTH), slice(0, LENGTH)).tril()
    for part, name in ((slice(0, PREFIX), "default"), (slice(PREFIX, None), "member")):
        assert torch.equal(first["picked"].positions[:, :, part], first[name].positions[:, :, part])
        torch.testing.assert_close(others["picked"][:, :, part], others[name][:, :, part], rtol=1e-5, atol=1e-6)
    assert number == 2 or not torch.equal(first["picked"].positions, first["default"].positions)


def test_each_row_gets_the_member_that_it_picks_whoever_is_beside_it():
    model = model_of()
    seen, picked = observed(model, tokens())
    assert all(len(entry.unique()) > 1 for entry in picked)
    for row in range(6):
        one, entry = observed(model, tokens()[row : row + 1])
        assert [int(x) for x in entry] == [int(x[row]) for x in picked]
        for mine, all_ in zip(one, seen, strict=True):
            slots = mine.selection.positions.shape[-1]
            assert torch.equal(mine.selection.positions[0], all_.selection.positions[row, ..., :slots])


def test_every_backend_selects_the_same():
    found = [observed(model_of(f"ops={name}"), tokens())[0] for name in ("auto", "blocked", "reference")]
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            assert torch.equal(a.selection.positions, b.selection.positions)


@pytest.mark.parametrize("change", [5, PREFIX - 1, PREFIX, PREFIX + 1, 50])
def test_nothing_depends_on_later_tokens(change):
    model, other = model_of(), tokens()
    other[:, change:] = (other[:, change:] + 7) % 64
    with torch.no_grad():
        assert torch.equal(model(tokens())[:, :change], model(other)[:, :change])
    if change >= PREFIX:
        assert all(map(torch.equal, observed(model, tokens())[1], observed(model, other)[1]))


@pytest.mark.parametrize("precision", ["fp16", "fp8", "int8", "int8_tensor", "dynamic"])
def test_changing_the_future_leaves_the_past_untouched_in_every_kind_of_format(precision):
    assert_causal([*OWN[len(SMALL) :], "pattern=causal", "selector.k=10", f"precision={precision}"])


@pytest.mark.parametrize("parts", [[30, 34], [7, 8, 30, 19], [20, 1, 43]])
def test_a_row_in_parts_is_scored_as_it_is_whole(parts):
    model, how = model_of(), Pass(cache=Cache())
    with torch.no_grad():
        found = torch.cat([model.run(part, how).logits for part in tokens().split(parts, 1)], 1)
        torch.testing.assert_close(found, model(tokens()), atol=1e-5, rtol=1e-5)


def test_a_budget_that_reaches_the_length_is_dense_attention():
    model = model_of("selector.k=64")
    with torch.no_grad():
        assert torch.equal(model(tokens()), model.run(tokens(), Pass(sparse=False)).logits)


@pytest.mark.parametrize("pattern", ["adaptive", "local_global_16_32", "strided_2", "sinks"])
def test_it_goes_with_every_kind_of_pattern(pattern):
    """A query keeps no key that it may not see, and all rows keep as many."""
    seen, _ = observed(model_of(f"pattern={pattern}", "selector.k=20"), tokens())
    for layer in seen:
        kept = layer.selection.positions
        assert (kept <= torch.arange(LENGTH)[:, None]).all()
        assert ((kept >= 0).sum(-1) == layer.selection.counts).all() and (layer.selection.counts > 0).all()


def test_a_members_loss_is_over_its_own_rows_and_the_whole_their_mean():
    draw = torch.Generator().manual_seed(0)
    q, k = (torch.randn(6, 2, LENGTH, 8, generator=draw) for _ in range(2))
    indexer = model_of().routers[0].indexer
    x = torch.randn(6, LENGTH, 32, generator=draw)
    mixed = indexer(x, Rotation(LENGTH, 1e4))
    target = TrueAttention(q, k, ops.dense_logsumexp(q, k))
    scores = mixed.scores(slice(0, LENGTH), slice(0, LENGTH))
    later = torch.ones(LENGTH, LENGTH).triu(1).bool()
    p = target.scores(slice(0, LENGTH), slice(0, LENGTH)).masked_fill(later, 0)
    p = p / p.sum(-1, keepdim=True)
    log = scores.masked_fill(later, -math.inf).log_softmax(-1).masked_fill(later, 0.0)
    expected = (torch.special.xlogy(p, p) - p * log).sum(-1)
    torch.testing.assert_close(ops.indexer_loss(mixed, target, None), expected.mean(), rtol=1e-4, atol=1e-5)
    rows = torch.rand(6, LENGTH, generator=draw)
    weighed = target.emphasised(ops.Emphasis(rows=rows))
    mean = (expected[:, 0] * rows).sum() / rows.sum()
    torch.testing.assert_close(ops.indexer_loss(mixed, weighed, None), mean, rtol=1e-4, atol=1e-5)
    selection = ops.select(mixed, (ops.Zone(first=None),), torch.full((6, 1, LENGTH), 9))
    picked_rows = mixed.picked.entry
    loss = ops.indexer_loss(mixed, target, selection)
    loss.backward()
    for number in (0, 1):  # the third scores the first tokens of every row
        moved = any(p.grad is not None and p.grad.abs().sum() > 0 for p in indexer.member(number).parameters())
        assert moved == bool((picked_rows == number).any())
    assert indexer.picker.weight.grad is None


def test_the_picker_learns_how_much_more_each_member_loses_in_the_rest_of_a_row_and_teaches_nobody_else():
    draw = torch.Generator().manual_seed(0)
    q, k = (torch.randn(3, 2, LENGTH, 8, generator=draw) for _ in range(2))
    x = torch.randn(3, LENGTH, 32, generator=draw)
    indexer = model_of().routers[0].indexer
    each = [part(x, Rotation(LENGTH, 1e4)) for part in indexer.parts().values()]
    target = TrueAttention(q, k, ops.dense_logsumexp(q, k))
    lost = lost_by_row(each, target, PREFIX, "auto")
    for row in range(3):
        own = target._replace(
            queries=q[row : row + 1, :, PREFIX:],
            keys=k[row : row + 1],
            logsumexp=target.logsumexp[row : row + 1, :, PREFIX:],
        )
        for number, one in enumerate(each):
            part = IndexFeatures(
                one.queries[row : row + 1, :, PREFIX:], one.keys[row : row + 1], one.weights[row : row + 1, :, PREFIX:]
            )
            torch.testing.assert_close(lost[row, number], indexer_loss(part, own, None).detach())
    loss = regret_loss(indexer, x, each, target, "auto")
    loss.backward()
    assert all(p.grad is None for p in indexer.members.parameters())
    expected = (indexer.regret(x[:, :PREFIX]) - (lost - lost[:, 2:])).square().mean()
    torch.testing.assert_close(loss, expected)
    assert indexer.picker.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("compute", [0.3, 0.5, 0.7, 1.0])
def test_the_price_meets_the_target_and_spends_where_it_is_expected_to_help(compute):
    indexer = compose([*OWN, f"indexer.compute={compute}"]).indexer.make(d_model=32)
    regret = torch.rand(4000, 1, generator=torch.Generator().manual_seed(0)) * torch.tensor([[1.0, 0.4, 0.0]])
    indexer.set_price(regret)
    cost = torch.tensor(indexer.shares)
    picks = (regret + indexer.price * cost).argmin(-1)
    assert compute - 0.002 < cost[picks].mean() <= compute + 0.002
    if compute == 0.5:
        assert regret[picks == 2, 0].mean() > regret[picks == 1, 0].mean() > regret[picks == 0, 0].mean()
    assert compute < 1 or indexer.price == 0


@pytest.mark.slow
def test_calibration_brings_the_picks_of_other_rows_near_the_target():
    spec = compose([*CAUSAL, "data.batch_size=16", "indexer.compute=0.6"])
    data = build_data(spec)
    model = model_of("indexer.compute=0.6", vocab=data.vocab_size)
    with torch.no_grad():
        for router in model.routers:
            router.indexer.picker.weight.mul_(0.1)
            router.indexer.picker.bias.copy_(torch.tensor([5.0, 2.5, 0.0]))  # the default loses least
    calibrate(model, data, torch.device("cpu"))
    found = {}
    held = torch.cat([data.batch("other", step).tokens for step in range(20)])
    model.run(held, Pass(picked=found.__setitem__))
    for site, picked in found.items():
        indexer = model.routers[site].indexer
        assert indexer.price > 0
        assert torch.tensor(indexer.shares)[picked.entry].mean() == pytest.approx(0.6, abs=0.08)


@EVERY_MEMBER
@pytest.mark.parametrize("pattern", ["causal", "local_global_16_32", "strided_2"])
def test_operations_are_those_that_are_spent(number, pattern):
    """Scores by counting pairs, projections by torch's counter."""
    model = always(model_of(f"pattern={pattern}"), number)
    zones = model.routers[0].pattern.zones()
    indexer, x = model.routers[0].indexer, torch.randn(1, LENGTH, 32)
    with FlopCounterMode(display=False) as counter:
        mixed = indexer(x, Rotation(LENGTH, 1e4))
    pairs = [sum(len(held(zone, t)) for zone in zones if not zone.forced) for t in range(LENGTH)]
    pair = [2 * h * d + 3 * h for h, d in ((1, 4), (2, 4), (2, 8))]
    scores = pair[2] * sum(pairs[:PREFIX]) + pair[number] * sum(pairs[PREFIX:])
    picked = dict.fromkeys(NAMES, 0.0) | {NAMES[number]: 1.0}
    router = indexer.routing_flops(LENGTH) - PREFIX * 32
    assert mixed.cost(zones, LENGTH) == scores
    counted = flops(model, LENGTH, 0.5, picked={0: picked, 1: picked})
    assert counted["indexer"] == 2 * (scores + counter.get_total_flops() - router)
    assert counted["select"] == 2 * indexer.routing_flops(LENGTH)


def held(zone, t):
    start, count = (int(x) for x in zone.span(torch.tensor([[t]])))
    return range(start, start + count * zone.step, zone.step)


def test_operations_of_rows_that_differ_are_their_mean():
    model = model_of()
    each = [dict.fromkeys(NAMES, 0.0) | {name: 1.0} for name in NAMES]
    ends = [flops(model, LENGTH, 0.5, picked={0: one, 1: one})["indexer"] for one in each]
    mixed = dict(zip(NAMES, (0.5, 0.25, 0.25), strict=True))
    mean = 0.5 * ends[0] + 0.25 * ends[1] + 0.25 * ends[2]
    assert flops(model, LENGTH, 0.5, picked={0: mixed, 1: mixed})["indexer"] == pytest.approx(mean)
    assert ends[0] < ends[1] < ends[2]


def test_each_member_begins_as_it_would_alone():
    for number, name in enumerate(NAMES):
        size = [f"indexer.heads={name[1]}", f"indexer.dim={name[3]}"]
        other = compose([*SMALL, "indexer=h2d8", *size]).indexer.make(d_model=32)
        draw_indexer(other, 0, 1)
        own = compose(OWN).indexer.make(d_model=32)
        draw_indexer(own, 0, 1)
        assert own.member(number).state_dict().keys() == other.state_dict().keys()
        assert all(map(torch.equal, own.member(number).state_dict().values(), other.state_dict().values()))


def test_what_a_row_shorter_than_the_prefix_picks_is_not_decided():
    seen, picked = observed(model_of(), tokens()[:, :12])
    assert picked == [] and all(isinstance(layer.cast, Mixed) and layer.cast.picked is None for layer in seen)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["indexer.members=[h1d4]"], "indexer.members = h1d4: give two or more"),
        (["indexer.members=h1d4"], "indexer.members = h1d4: give a list"),
        (["indexer.members=[h1d4,large]"], "indexer.members: large is no size; give heads and dims, as h2d32"),
        (["indexer.members=[h2d4,h2d4]"], "indexer.members = h2d4, h2d4: give two or more"),
        (["indexer.compute=0"], "indexer.compute = 0: give a share above 0 and at most 1"),
        (["indexer.compute=0.2"], "indexer.compute = 0.2: a score of h1d4 alone costs 0.289 of one of h2d8"),
        (["indexer.prefix=0"], "indexer.prefix = 0: give a whole number from 1"),
        (["indexer.fixed=h4d64"], "indexer.fixed = h4d64: give h2d8, h2d4 or h1d4"),
    ],
)
def test_settings_that_cannot_be_are_refused(overrides, message):
    with pytest.raises(ValueError, match=message):
        compose([*OWN, *overrides]).indexer.make(d_model=32)


RUN = [
    *CAUSAL, *QUIET, "seq_len=32", "indexer.prefix=8", "dtype=fp32", "recipe.dense.steps=2", "recipe.warmup.steps=4",
    "recipe.sparse.steps=4", "callbacks.checkpoint_every=2", "dense_control=false",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("own", [[], ["index_every=2", "precision=int8"]], ids=["plain", "shared"])
def test_a_whole_run_goes_on_after_a_kill_to_the_same_weights_and_says_what_was_picked(outputs, own, monkeypatch):
    whole = train(compose([*RUN, *own, f"output_dir={outputs}/whole"]))
    cut = cut_and_resumed([*RUN, *own, f"output_dir={outputs}/cut"], monkeypatch)
    assert cut.val_loss == whole.val_loss and cut.selection == whole.selection
    shares = [layer["picked"] for layer in whole.selection["layers"] if layer["picked"] is not None]
    assert shares and all(sum(share.values()) == pytest.approx(1) for share in shares)
    assert final_values(whole)["select/layer_00/picked/h2d8"] == shares[0]["h2d8"]
    rows = read_rows(Path(whole.folder) / "metrics.csv")
    drawn = [row for row in rows if row["stage"] == "sparse" and row["kind"] == "train"]
    assert sum(float(drawn[-1][f"train/picked_00_{name}"]) for name in NAMES) == pytest.approx(1)
    learned = [row for row in rows if row["stage"] == "warmup" and row["kind"] == "train"]
    assert {f"train/{part}_loss" for part in ("indexer", "picker", "indexer_h1d4")} <= learned[-1].keys()
    assert any("times are of one sequence" in one for one in whole.warnings)
    model = load_run(whole.folder)
    assert flops(model, 32, whole.density, picked=dict(enumerate(shares))) == whole.flops
    assert {router.indexer.price.item() for router in model.routers} != {0.0}
