"""Losses of layers that share an indexer, balanced: what is minimised, what is left as it was, and what is refused."""

from types import SimpleNamespace

import pytest
import torch
from conftest import QUIET, SMALL

from dsa import compose
from dsa.backbones import Pass
from dsa.build import attach_routers, build_backbone, build_data, build_indexers, numbers_of_indexers
from dsa.graph import graph_of
from dsa.training.balance import BALANCES, Balanced, GradNorm, Uncertainty
from dsa.training.cohort import CohortTraining
from dsa.training.execute import train
from dsa.training.joint import JointTraining
from dsa.training.member import Member
from dsa.training.settings import check_settings
from dsa.training.stages import Group, Stage
from training.whole_runs import interrupted_in_both_stages

RUN = [
    *SMALL, *QUIET, "model.layers=3", "seq_len=32", "dtype=fp32", "pattern=causal", "selector.k=6", "indexer=h2d8",
    "index_every=2", "recipe.dense.steps=2", "recipe.warmup.steps=3", "recipe.sparse.steps=3",
    "callbacks.checkpoint_every=1",
]  # fmt: skip
OF = [0, 0, 1]  # which indexer each of the three layers has
each_kind = pytest.mark.parametrize("kind", BALANCES)


@pytest.fixture(scope="module")
def data():
    return build_data(compose(RUN))


@pytest.fixture
def batch(data):
    return data.batch("warmup", 0)


def member_of(spec, model, name):
    return Member(
        spec, SimpleNamespace(hash=name), torch.nn.ModuleList(build_indexers(spec, model)),
        numbers_of_indexers(model.sites, spec.index_every), torch.nn.ModuleList(), spec.precision.make(),
        spec.objective.make(), None, None,
    )  # fmt: skip


def warm_up(data, kinds, *settings):
    """A cohort of which each member balances in its own way."""
    specs = [compose([*RUN, *settings, f"objective.balance={kind}"]) for kind in kinds]
    model = build_backbone(specs[0], data.vocab_size)
    members = [member_of(spec, model, kind) for kind, spec in zip(kinds, specs, strict=True)]
    spec, groups = specs[0], [group for member in members for group in member.groups]
    return CohortTraining(
        members, model, data, False, Stage("warmup", 3, 0), groups, spec.optimizer.make(), spec.recipe, 1, None
    ).train()


def joint(data, kind, *settings):
    spec = compose([*RUN, f"objective.balance={kind}", *settings])
    model = build_backbone(spec, data.vocab_size)
    attach_routers(spec, model, build_indexers(spec, model))
    groups = [Group(name, own, 1e-3, "") for name, own in model.groups().items() if own]
    arguments = model, data, True, Stage("sparse", 3, 0), groups, spec.optimizer.make(), spec.recipe, 1, None
    training = JointTraining(spec.objective.make(), *arguments).train()
    training._trainer = SimpleNamespace(global_step=0, world_size=1)
    return training


def gradients(training, batch, name, monkeypatch):
    """A loss and the gradients that it gives the indexers, and all others by the sum of all losses."""
    monkeypatch.setattr(JointTraining, "global_step", 0)
    for parameter in training.parameters():
        parameter.grad = None
    losses = training.losses(batch)
    torch.stack(list(losses.values())).sum().backward()
    return losses[name], {name: p.grad for name, p in training.named_parameters() if p.requires_grad}


def tilted(training):
    """Its balances say something else than at first."""
    for balanced in training.balances.values():
        for _, balance in balanced.balances():
            balance.learned.copy_(torch.tensor([0.5, -0.4]))
    return training


class Two(torch.nn.Module):
    """One vector that two losses pull to different places, one much harder."""

    def __init__(self):
        super().__init__()
        self.x = torch.nn.Parameter(torch.zeros(3))

    def losses(self):
        return [((self.x - 1) ** 2).mean(), 100 * ((self.x + 1) ** 2).mean() + 1]


@each_kind
def test_the_gradient_of_a_balance_is_that_of_what_its_paper_minimises(kind):
    balance = BALANCES[kind](2)
    first, losses, norms = torch.tensor([2.0, 0.5]), torch.tensor([1.2, 0.4]), torch.tensor([0.7, 3.0])
    balance.learn(first, norms)
    learned = balance.learned.clone().requires_grad_()
    if kind == "gradnorm":
        weights = 2 * learned.softmax(0)
        left = losses / first
        wanted = (weights * norms).mean() * (left / left.mean()) ** 1.5
        minimised = (weights * norms - wanted.detach()).abs().sum()
    else:
        minimised = ((-learned).exp() * losses + learned / 2).sum()
    (expected,) = torch.autograd.grad(minimised, learned)
    assert expected.abs().min() > 1e-3
    torch.testing.assert_close(balance.gradient(losses, norms), expected)


def test_the_steps_of_a_balance_are_those_of_adam():
    balance, losses = Uncertainty(2), torch.tensor([0.2, 3.0])
    parameter = torch.nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.Adam([parameter], lr=Uncertainty.rate)
    for _ in range(20):
        parameter.grad = 0.5 - (-parameter.detach()).exp() * losses
        optimizer.step()
        balance.learn(losses, losses)
    torch.testing.assert_close(balance.learned, parameter.detach())


def test_what_each_balance_comes_to():
    two, norms = Two(), []
    balanced = Balanced(GradNorm, [0, 0], [list(two.parameters())])
    for _ in range(300):
        balanced.mean(two.losses())
        pulls = balanced.seen["0"][1].norm(dim=1)
        balanced.learn(lambda x: x, 1)
    norms = balanced.balances()[0][1].weights() * pulls
    assert norms[0] / norms[1] == pytest.approx(1.0, abs=0.1)  # no loss has fallen: both pull alike
    fitted = Uncertainty(2)
    for _ in range(300):
        fitted.learn(torch.tensor([0.25, 2.0]), torch.ones(2))
    torch.testing.assert_close(fitted.weights(), torch.tensor([2.0, 0.25]), rtol=0.02, atol=0)


def test_a_loss_that_lags_behind_is_made_to_pull_harder():
    balance, norms = GradNorm(2), torch.ones(2)
    balance.learn(torch.ones(2), norms)
    for _ in range(200):
        balance.learn(torch.tensor([0.9, 0.3]), norms)
    weights = balance.weights()  # wanted are 1.5^1.5 and 0.5^1.5, but their sum is 2: as near as that allows
    missing = torch.tensor([1.5**1.5, 0.5**1.5]) - weights
    torch.testing.assert_close(missing.abs().sum(), missing.sum().abs(), atol=0.05, rtol=0)
    torch.testing.assert_close(weights.sum(), torch.tensor(2.0))


@each_kind
@pytest.mark.parametrize("ops", ["reference", "blocked", "auto"])
def test_in_the_warm_up_the_layers_that_share_an_indexer_teach_it_by_their_weights(data, batch, kind, ops, monkeypatch):
    training = tilted(warm_up(data, [kind], f"ops={ops}"))
    seen = []
    mean = Balanced.mean
    monkeypatch.setattr(Balanced, "mean", lambda self, losses: (seen.extend(losses), mean(self, losses))[1])
    loss = training.losses(batch)[f"{kind}/indexer"]
    torch.testing.assert_close(loss, torch.stack(seen).mean())
    parameters = list(training.indexers.parameters())
    found = torch.autograd.grad(loss, parameters, retain_graph=True)
    ((number, balance),) = training.balances[f"{kind}/indexer"].balances()
    weights = [*balance.weights(), 1.0]
    assert number == 0 and abs(weights[0] - weights[1]) > 0.5
    weighted = sum(weight * own for weight, own in zip(weights, seen, strict=True)) / 3
    for one, other in zip(found, torch.autograd.grad(weighted, parameters), strict=True):
        torch.testing.assert_close(one, other)


@each_kind
def test_it_turns_the_gradient_of_a_shared_indexer_and_of_nothing_else(data, batch, kind, monkeypatch):
    """A weight that Adam could cancel would leave its direction as it is."""
    loss, plain = gradients(joint(data, "fixed"), batch, "loss", monkeypatch)
    same, found = gradients(tilted(joint(data, kind)), batch, "loss", monkeypatch)
    assert loss.equal(same)
    turned = {name for name, gradient in found.items() if not gradient.equal(plain[name])}
    shared = {name for name in plain if name.startswith("model.routers.0.indexer")}
    assert turned == shared
    one, other = (torch.cat([x[name].flatten() for name in sorted(shared)]) for x in (plain, found))
    assert torch.cosine_similarity(one, other, 0) < 0.999


@each_kind
@pytest.mark.parametrize("memory", ["checkpoint", "offload"])
def test_a_recomputed_layer_teaches_and_is_weighed_the_same(data, batch, kind, memory, monkeypatch):
    seen = []
    for settings in ([], [f"memory={memory}"]):
        training = tilted(joint(data, kind, *settings))
        with training.model.memory.saving():
            loss, found = gradients(training, batch, "indexer_loss", monkeypatch)
        seen.append([loss, *found.values(), *training.balances["indexer"].seen["0"]])
    assert all(map(torch.equal, *seen))


@each_kind
def test_in_a_cohort_each_is_balanced_as_if_alone(data, batch, kind):
    together = warm_up(data, ["fixed", *BALANCES])
    alone = warm_up(data, [kind])
    for training in (together, alone):
        for _ in range(3):
            training.losses(batch)
            for balanced in training.balances.values():
                balanced.learn(lambda x: x, 1)
    name = f"{kind}/indexer"
    assert together.balances.keys() == {f"{one}/indexer" for one in BALANCES} and [*alone.balances] == [name]
    one, other = (training.balances[name].state_dict() for training in (together, alone))
    assert all(one[key].equal(other[key]) for key in other) and other["shared.0.learned"].any()


@each_kind
def test_parts_of_a_batch_and_processes_teach_a_balance_what_the_whole_does(kind):
    two, ends = Two(), []
    first, second = two.losses()
    for parts, processes in ((1, 1), (2, 1), (2, 2)):
        balanced = Balanced(BALANCES[kind], [0, 0], [[two.x]])
        for part in range(parts):
            apart = 0.0 if parts == 1 else 0.5 * (-1) ** part
            balanced.mean([first * (1 + apart), second * (1 - apart)])
        counted = balanced.learn(lambda x, n=processes: x * n, parts * processes)
        assert counted == {0: 1.0, 1: 1.0}, "the weights of the step that is over"
        ends.append(balanced.balances()[0][1].learned)
    assert ends[0].any() and torch.allclose(ends[0], ends[1]) and torch.allclose(ends[0], ends[2])


def test_losses_that_are_not_balanced_are_minimised_and_named_as_before(data):
    training = joint(data, "fixed")
    assert not training.balances and not warm_up(data, ["fixed"]).balances
    spec = compose([*RUN, "objective.balance=fixed"])
    graph = graph_of(spec, "corpus")
    assert "balance" not in str(graph.indexers.identity) + str(graph.joint.identity)


@pytest.mark.parametrize(("settings", "words"), [
    (["index_every=1"], r"^objective\.balance = gradnorm: no two losses teach .* give index_every=2 or more"),
    (["index_every=[0,1,2]"], r"^objective\.balance = gradnorm: no two losses teach"),
    (["trainer=fsdp"], r"^objective\.balance = gradnorm: it needs the gradient .* give trainer=ddp"),
    (["objective.balance=equal"], r"^objective\.balance = equal: .*fixed.*gradnorm.*uncertainty"),
])  # fmt: skip
def test_what_cannot_be_balanced_is_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        check_settings(compose([*RUN, "objective.balance=gradnorm", *settings]))


def test_where_nothing_is_taught_nothing_is_asked():
    check_settings(compose([*RUN, "objective.balance=gradnorm", "selector=oracle", "index_every=1"]))


def test_nothing_at_a_position_depends_on_later_tokens(data, batch):
    """Weights of a batch's losses are constants of its pass."""
    model = tilted(joint(data, "gradnorm")).model.eval()
    tokens, seen = batch.tokens.clone(), []
    for _ in range(2):
        model.run(tokens, Pass(observe=lambda one: seen.append(one.selection.positions[:, :, :20])))
        tokens[:, 20:] = tokens[:, 20:].flip(1)
    assert all(map(torch.equal, seen[:3], seen[3:]))


@pytest.mark.slow
@each_kind
def test_a_run_is_balanced_in_both_stages_and_goes_on_where_it_was_interrupted(tmp_path, monkeypatch, kind):
    settings = [*RUN, f"objective.balance={kind}"]
    whole = train(compose([*settings, f"output_dir={tmp_path / 'whole'}"]))
    rows = (tmp_path / "whole" / "runs" / whole.run_id / "metrics.csv").read_text().splitlines()
    names = rows[0].split(",")
    assert {"train/balance_00_indexer", "train/balance_01_indexer"} <= set(names)
    assert "train/balance_02_indexer" not in names
    weights = {row.split(",")[names.index("train/balance_00_indexer")] for row in rows[1:]} - {""}
    assert len(weights) > 3
    parts = interrupted_in_both_stages([*settings, f"output_dir={tmp_path / 'again'}"], monkeypatch)
    assert (parts.val_loss, parts.swap_val_loss) == (whole.val_loss, whole.swap_val_loss)
