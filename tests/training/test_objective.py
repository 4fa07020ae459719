"""What the indexers learn more of: what is asked and hard, and the keys on whose attention the loss depends."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from conftest import QUIET, SMALL

from dsa import compose
from dsa.backbones import Pass, attention
from dsa.build import attach_routers, build_backbone, build_data, build_indexers
from dsa.data import IGNORE
from dsa.training import objective
from dsa.training.cohort import CohortTraining
from dsa.training.execute import train
from dsa.training.joint import JointTraining
from dsa.training.member import Member
from dsa.training.objective import GradientKL, language_model_loss
from dsa.training.settings import check_settings
from dsa.training.stages import Group, Stage
from training.whole_runs import interrupted_in_both_stages

RUN = [
    *SMALL, *QUIET, "seq_len=32", "dtype=fp32", "pattern=causal", "selector.k=6", "indexer=h2d8",
    "recipe.dense.steps=2", "recipe.warmup.steps=3", "recipe.sparse.steps=3", "callbacks.checkpoint_every=1",
]  # fmt: skip
OBJECTIVES = ["kl", "asked_kl", "gradient_kl"]
EVERYWHERE = slice(None)


@pytest.fixture(scope="module")
def data():
    return build_data(compose(RUN))


@pytest.fixture
def batch(data):
    return data.batch("warmup", 0)


def sparse(data, *settings):
    """The model of a run as joint training begins."""
    spec = compose([*RUN, *settings])
    model = build_backbone(spec, data.vocab_size)
    attach_routers(spec, model, build_indexers(spec, model))
    return spec, model


def plainly(seen):
    """Dense attention written out, which leaves its probabilities, with their gradient, in a list."""

    def attend(q, k, v, scale=None):
        logits = q @ k.mT * (q.shape[-1] ** -0.5 if scale is None else scale)
        p = logits.masked_fill(torch.ones_like(logits, dtype=torch.bool).triu(1), -torch.inf).softmax(-1)
        p = p if p.requires_grad else p.requires_grad_()
        p.retain_grad()
        seen.append(p)
        return p @ v

    return attend


@pytest.mark.parametrize("frozen", [True, False])
def test_a_key_counts_by_the_gradient_that_autograd_finds_for_its_probability(data, batch, monkeypatch, frozen):
    model, how, seen = sparse(data)[1].requires_grad_(not frozen), Pass(sparse=False), []
    found = GradientKL(1.0, True).emphasis(model, batch, how)
    monkeypatch.setattr(attention.ops, "attend_dense", plainly(seen))
    language_model_loss(model.run(batch.tokens, how).logits, batch.targets).backward()
    assert found.keys() == {0, 1}
    for p, (site, emphasis) in zip(seen, found.items(), strict=True):
        factors = emphasis.factors(EVERYWHERE, EVERYWHERE)
        assert p.grad.abs().max() > 1e-5 and not factors.requires_grad
        torch.testing.assert_close(factors, p.grad.abs(), rtol=1e-3, atol=1e-7, msg=f"site {site}")


def test_a_query_counts_by_the_loss_of_its_token_and_one_that_is_not_asked_not_at_all(data, batch):
    spec, model = sparse(data, "objective=asked_kl")
    how = Pass(sparse=True)
    rows = spec.objective.make().emphasis(model, batch, how)[0].rows
    logits, asked = model.run(batch.tokens, how).logits, batch.targets != IGNORE
    assert rows[asked].min() > 0 and not rows[~asked].any() and 0 < asked.sum() < asked.numel()
    torch.testing.assert_close(rows[asked].mean(), language_model_loss(logits, batch.targets))


def cohort(data, names):
    """A warm-up of indexers that begin alike and learn by these objectives."""
    specs = [compose([*RUN, "ops=blocked", f"objective={name}"]) for name in names]
    model = build_backbone(specs[0], data.vocab_size)
    members = [
        Member(spec, SimpleNamespace(hash=name), torch.nn.ModuleList(build_indexers(spec, model)), [0, 1],
               torch.nn.ModuleList(), spec.precision.make(), spec.objective.make(), None, None)
        for name, spec in zip(names, specs, strict=True)
    ]  # fmt: skip
    spec, groups = specs[0], [group for member in members for group in member.groups]
    return CohortTraining(
        members, model, data, False, Stage("warmup", 3, 0), groups, spec.optimizer.make(), spec.recipe, 1, None
    ).train()


def taught(training, batch):
    """Each member's loss and gradients."""
    losses = training.losses(batch)
    torch.stack(list(losses.values())).sum().backward()
    return {
        member.need.hash: [losses[member.key("indexer")].item(), *(p.grad for p in member.indexers.parameters())]
        for member in training.members
    }


def test_in_a_cohort_each_objective_teaches_what_it_teaches_alone(data, batch):
    together = taught(cohort(data, OBJECTIVES), batch)
    for name in OBJECTIVES:
        (loss, *grads), (own, *others) = taught(cohort(data, [name]), batch)[name], together[name]
        assert loss == own and all(map(torch.equal, grads, others)) and any(x.any() for x in grads)
    assert len({loss for loss, *_ in together.values()}) == 3


def test_where_all_tokens_are_equally_hard_asked_kl_is_kl(data, batch, monkeypatch):
    monkeypatch.setattr(objective, "token_losses", lambda _, targets: torch.full(targets.shape, 0.7))
    both = taught(cohort(data, OBJECTIVES[:2]), batch)
    torch.testing.assert_close(*([torch.tensor(loss), *grads] for loss, *grads in both.values()))


def joint(data, *settings):
    """Joint training before its first step, its model, and the groups of what learns."""
    spec, model = sparse(data, *settings)
    groups = [Group(name, own, 1e-3, "") for name, own in model.groups().items() if own]
    arguments = model, data, True, Stage("sparse", 3, 0), groups, spec.optimizer.make(), spec.recipe, 1, None
    training = JointTraining(spec.objective.make(), *arguments).train()
    training._trainer = SimpleNamespace(global_step=0)
    return training, model


def gradients(training, model, batch, monkeypatch):
    """Losses of one step, and the gradients of backbone and indexers."""
    monkeypatch.setattr(JointTraining, "global_step", 0)
    torch.manual_seed(0)
    losses = training.losses(batch)
    torch.stack(list(losses.values())).sum().backward()
    return losses, {name: [p.grad for p in own] for name, own in model.groups().items()}


@pytest.mark.parametrize("pattern", ["causal", "learned"])
@pytest.mark.parametrize("name", OBJECTIVES[1:])
def test_in_joint_training_the_indexers_alone_learn_otherwise(data, batch, monkeypatch, name, pattern):
    own = ["ops=blocked", f"pattern={pattern}"]
    wanted, plain = gradients(*joint(data, *own), batch, monkeypatch)
    losses, found = gradients(*joint(data, *own, f"objective={name}"), batch, monkeypatch)
    assert losses["loss"].equal(wanted["loss"]) and not losses["indexer_loss"].equal(wanted["indexer_loss"])
    assert all(map(torch.equal, found["backbone"] + found["patterns"], plain["backbone"] + plain["patterns"]))
    assert all(x.any() for x in found["indexers"]) and not any(map(torch.equal, found["indexers"], plain["indexers"]))


def test_adamw_cancels_the_weight_of_a_loss_so_that_nothing_is_left_to_balance(data, batch, monkeypatch):
    ends = []
    for weight in (1.0, 1024.0):
        training, model = joint(data, "optimizer.fused=false", f"objective.weight={weight}")
        optimizer = training.make_optimizer([{"params": own, "lr": 1e-3} for own in model.groups().values()], eps=1e-20)
        for _ in range(2):
            optimizer.zero_grad()
            monkeypatch.setattr(JointTraining, "global_step", 0)
            torch.stack([training.weight(n) * x for n, x in training.losses(batch).items()]).sum().backward()
            optimizer.step()
        ends.append(model.state_dict())
    for name, weight in ends[0].items():
        torch.testing.assert_close(weight, ends[1][name], rtol=0, atol=1e-7, msg=name)


def test_a_whole_batch_is_wanted_and_a_gradient_at_every_layer(data, batch):
    with pytest.raises(ValueError, match=r"^trainer\.accumulate = 2: objective=asked_kl compares .*accumulate=1"):
        check_settings(compose([*RUN, "objective=asked_kl", "trainer.accumulate=2"]))
    for several in (["trainer=ddp"], ["trainer.num_nodes=2"], ["trainer.devices=[0,1]"]):
        with pytest.raises(ValueError, match=r"^trainer\.devices = .*: objective=asked_kl compares .* give 1 of both"):
            check_settings(compose([*RUN, "objective=asked_kl", *several]))
    picking = [*RUN, "indexer=dynamic", "trainer=ddp"]
    with pytest.raises(ValueError, match=r"^trainer\.devices = 2, .*: indexer=dynamic picks among others"):
        check_settings(compose(picking))
    check_settings(compose([*picking, "judge=swap"]))
    model = sparse(data)[1]
    run = model.run
    model.run = lambda tokens, how: run(tokens, replace(how, after=None))
    with pytest.raises(ValueError, match=r"^objective: gradient_kl needs the gradient at each attention layer"):
        GradientKL(1.0, True).emphasis(model, batch, Pass())


@pytest.mark.slow
@pytest.mark.parametrize("name", OBJECTIVES[1:])
def test_a_run_learns_by_it_in_both_stages_and_goes_on_where_it_was_interrupted(tmp_path, monkeypatch, name):
    settings = [*RUN, f"objective={name}"]
    whole = train(compose([*settings, f"output_dir={tmp_path / 'whole'}"]))
    parts = interrupted_in_both_stages([*settings, f"output_dir={tmp_path / 'again'}"], monkeypatch)
    assert (parts.val_loss, parts.swap_val_loss) == (whole.val_loss, whole.swap_val_loss)
