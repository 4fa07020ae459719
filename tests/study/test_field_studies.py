"""Studies of block indexers compare them at one mean budget, and leave out none of the field's."""

import pytest
import torch
from conftest import indexers

from dsa.backbones import Site
from dsa.build import build_indexer
from dsa.judging.cost import index_features, scoring
from dsa.ops.zones import spans
from dsa.training.sites import first_site
from study.studies import plans_of

OURS = {f"h{heads}d{dim}" for heads in (1, 2, 3, 4) for dim in (1, 2, 4, 8, 16, 32, 64)}
OURS |= {"block_mean", "dynamic", "multi_scale", "static", "ultra_light"}


SMOLLM2 = Site(0, 576, 9, 3, 64)
FIELD = ["field_indexers", "field_indexers_equal_operations", "field_indexers_pretrained"]
BLOCKS = ["block_granularity", "block_granularity_1024", "block_granularity_pretrained"]


def conditions(study, outputs):
    """The run of each condition and length; those of a pretrained model are planned on another, which need not be
    fetched."""
    small = ["model=mqar", "data=mqar", "recipe=solved"] if study.endswith("_pretrained") else []
    (plan,) = plans_of(f"study={study}", *small, "seed=0", f"output_dir={outputs}", exploratory=True)
    return {(run.label, run.seq_len): run for run in plan.runs if run.role == "condition"}


@pytest.mark.parametrize("study", [*FIELD, *BLOCKS])
def test_every_condition_keeps_as_many_keys_on_average(outputs, study):
    runs = conditions(study, outputs)
    assert all(run.reason is None for run in runs.values())
    for seq_len in {length for _, length in runs}:
        means = []
        for run in (run for (_, length), run in runs.items() if length == seq_len):
            indexer, k = build_indexer(run.spec, first_site(run.spec)), run.spec.selector.node["k"]
            every = spans(run.spec.pattern.make().zones(), torch.full((1, 1, seq_len), k), unit=indexer.unit,
                          forced=indexer.forced)  # fmt: skip
            kept = sum(span.keep * span.unit for span in every)
            means.append(kept[..., seq_len // 2 :].float().mean().item())
        assert max(means) / min(means) < 1.02, means


@pytest.mark.slow
@pytest.mark.parametrize("study", FIELD)
def test_the_studies_of_the_field_have_every_indexer_of_it(outputs, study):
    ours = {"h2d32", "h4d64"} if study == "field_indexers" else {"h4d64"}
    named = {run.spec.indexer.option.rstrip("~") for run in conditions(study, outputs).values()}
    assert named == set(indexers()) - OURS | ours


@pytest.mark.slow
@pytest.mark.parametrize("study", FIELD[1:])
def test_at_equal_operations_every_indexer_counts_those_of_h4d64(outputs, study):
    counted = {}
    for (label, seq_len), run in conditions(study, outputs).items():
        site = SMOLLM2 if study.endswith("_pretrained") else first_site(run.spec)
        indexer = build_indexer(run.spec, site)
        scores = scoring(indexer.scorer(index_features(indexer, site.width)), run.spec.pattern.make(), 0, seq_len, None)
        counted[label] = scores + indexer.projection_flops(seq_len)
    reference = counted["h4d64"]
    assert {label for label, count in counted.items() if abs(count / reference - 1) > 0.03} == set(), counted


@pytest.mark.slow
@pytest.mark.parametrize("study", FIELD)
def test_a_search_has_more_tokens_to_choose_from_than_its_budget(outputs, study):
    for run in (run for (label, _), run in conditions(study, outputs).items() if label.startswith("hisa")):
        indexer, k = run.spec.indexer.node, run.spec.selector.node["k"]
        assert k * 4 == indexer["block"] * indexer["blocks"] < run.seq_len
