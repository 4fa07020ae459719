"""Layers that share an indexer: what names it, what it learns, and a run from the base to its result."""

from types import SimpleNamespace

import pytest
import torch
from conftest import QUIET, SMALL

from dsa import compose, load_run, ops, train
from dsa.backbones import Pass
from dsa.backbones.router import dense_target
from dsa.build import build_backbone, build_data, build_indexers, numbers_of_indexers
from dsa.graph import graph_of, run_id
from dsa.precision import Exact
from dsa.spec import spec_from
from dsa.training.cohort import CohortTraining
from dsa.training.member import Member
from dsa.training.stages import Stage

RUN = [
    *SMALL, *QUIET, "model.layers=4", "seq_len=32", "dtype=fp32", "pattern=causal", "selector.k=6", "indexer=h2d8",
    "recipe.dense.steps=2", "recipe.warmup.steps=4", "recipe.sparse.steps=2",
]  # fmt: skip
NEEDS = ("base", "indexers", "joint", "control", "dense", "swap", "window", "final", "control_final")
SHARED = {"indexers", "joint", "swap", "final"}


@pytest.mark.parametrize("recipe", [[], ["recipe=judge"], ["recipe=scratch"]])
def test_one_at_every_layer_is_named_as_if_there_were_no_choice(recipe):
    spec = compose([*RUN, *recipe, "index_every=1"])
    content = {name: value for name, value in spec.content.items() if name != "index_every"}
    before = spec_from(content)
    assert before.index_every == 1
    own, other = graph_of(spec, "corpus"), graph_of(before, "corpus")
    assert run_id(spec, own) == run_id(before, other)
    for name in NEEDS:
        need = getattr(own, name)
        assert need is None or "index_every" not in str(need.identity)


def test_sharing_shapes_indexers_and_what_stands_on_them_alone():
    one, two = (graph_of(compose([*RUN, f"index_every={n}"]), "corpus") for n in (1, 2))
    changed = {name for name in NEEDS if getattr(one, name).hash != getattr(two, name).hash}
    assert changed == SHARED
    scratch = [
        graph_of(compose([*RUN, "recipe=scratch", f"index_every={n}"]), "corpus").hash for n in (1, 2, 4, [0, 3])
    ]
    assert len(set(scratch)) == 4
    control = [graph_of(compose([*RUN, "selector=oracle", f"index_every={n}"]), "corpus").hash for n in (1, 2, [0, 3])]
    assert len(set(control)) == 1
    spec = compose([*RUN, "index_every=[0,1]"])
    assert "-lead0.1-" in run_id(spec, graph_of(spec, "corpus")) and spec.indexer_label == "h2d8-lead0.1"


@pytest.mark.parametrize(("listed", "every"), [([0, 2], 2), ([0, 1, 2, 3], 1), ([0], 4), ([0, 3], 3)])
def test_layers_that_lead_at_equal_distances_are_named_by_the_distance(listed, every):
    """Of four layers."""
    one, other = (compose([*RUN, f"index_every={given}"]) for given in (listed, every))
    assert one.index_every == every
    assert run_id(one, graph_of(one, "corpus")) == run_id(other, graph_of(other, "corpus"))


def test_layers_that_lead_at_other_distances_stay_as_they_are():
    for listed in ([0, 1], [0, 1, 2], [0, 2, 3], [0, 4]):
        assert compose([*RUN, f"index_every={listed}"]).index_every == tuple(listed)


def warm_up(every):
    """A cohort of one that shares, with its base and data, before its first step."""
    spec = compose([*RUN, f"index_every={every}"])
    data = build_data(spec)
    model = build_backbone(spec, data.vocab_size)
    indexers = torch.nn.ModuleList(build_indexers(spec, model))
    of = numbers_of_indexers(model.sites, spec.index_every)
    patterns, own = torch.nn.ModuleList(), SimpleNamespace(hash="m")
    member = Member(spec, own, indexers, of, patterns, Exact(), spec.objective.make(), None, None)
    stage = Stage("warmup", spec.recipe.warmup_steps, 0)
    training = CohortTraining(
        [member], model, data, False, stage, member.groups, spec.optimizer.make(), spec.recipe, 1, None
    )
    return training, data.batch("warmup", 0)


@pytest.mark.parametrize(("every", "together"), [
    (2, [(0, 1), (2, 3)]), (3, [(0, 1, 2), (3,)]), (4, [(0, 1, 2, 3)]), ([0, 1, 3], [(0,), (1, 2), (3,)]),
])  # fmt: skip
def test_the_warm_up_teaches_the_mean_of_the_sites_attention(every, together):
    training, batch = warm_up(every)
    training.losses(batch)["m/indexer"].backward()
    taught = {name: p.grad.clone() for name, p in training.indexers.named_parameters()}
    assert all(gradient.any() for gradient in taught.values())
    training.indexers.zero_grad()
    inputs, later = [], torch.ones(32, 32, dtype=torch.bool).triu(1)
    with torch.no_grad():
        training.model.run(batch.tokens, Pass(sparse=False, watch=inputs.append))
    for number, sites in enumerate(together):
        each = [
            dense_target(own.site, own.queries, own.keys, "reference").scores(slice(0, 32), slice(0, 32))
            / own.site.heads
            for own in (inputs[site] for site in sites)
        ]
        mean = torch.stack(each).mean(0).masked_fill(later, 0.0)
        torch.testing.assert_close(mean.sum(-1), torch.ones_like(mean.sum(-1)))
        first = inputs[sites[0]]
        features = training.members[0].indexers[number](first.hidden, first.rotary)
        (ops.indexer_loss(features, mean, None, backend="reference") * len(sites) / 4).backward()
    for name, p in training.indexers.named_parameters():
        torch.testing.assert_close(taught[name], p.grad, atol=1e-6, rtol=1e-4, msg=name)


@pytest.mark.slow
def test_a_run_trains_and_judges_indexers_that_layers_share(outputs):
    one, two = (train(compose([*RUN, f"index_every={n}", f"output_dir={outputs}"])) for n in (1, 2))
    assert two.status == "finished"
    assert two.artifacts["base"] == one.artifacts["base"] and two.artifacts["control"] == one.artifacts["control"]
    assert "-every2-" in two.run_id and "-every2-" in two.artifacts["indexers"]
    assert two.swap_val_loss != one.swap_val_loss and two.swap_window_loss == one.swap_window_loss
    model = load_run(two.folder)
    assert model.router_of == (0, 0, 1, 1)
    assert sum(p.numel() for p in model.groups()["indexers"]) * 2 == sum(
        p.numel() for p in load_run(one.folder).groups()["indexers"]
    )


@pytest.mark.parametrize(("every", "words"), [
    ("5", r"index_every = 5: the model has 4 attention layers .* from 1 to 4\."),
    ("[0,4]", r"index_every = \[0, 4\]: the model has 4 attention layers .* from 0 to 3\."),
])  # fmt: skip
def test_more_layers_than_there_are_cannot_share(every, words):
    spec = compose([*RUN, f"index_every={every}"])
    with pytest.raises(ValueError, match=words):
        numbers_of_indexers(build_backbone(spec, 64).sites, spec.index_every)
