"""Number formats where they are used: in the training of a cohort, in what a judgement measures, in what is counted."""

import itertools

import pytest
import torch
from conftest import QUIET, SMALL, options

from dsa import build_model, compose
from dsa.artifacts.store import Store
from dsa.build import build_data
from dsa.graph import graph_of
from dsa.judging.checkpoints import read_weights
from dsa.judging.cost import flops
from dsa.judging.probe import probe
from dsa.training.base import make_base
from dsa.training.cohort import make_indexers
from dsa.training.dashboard import Dashboard

RUN = [
    *SMALL, *QUIET, "seq_len=32", "dtype=fp32", "pattern=causal", "selector.k=8", "indexer=h2d8",
    "recipe.dense.steps=2", "recipe.warmup.steps=2", "recipe.sparse.steps=0",
]  # fmt: skip


def measured(*overrides):
    """What is measured of the first layer, with weights large enough for rows to differ."""
    model = build_model(compose([*RUN, *overrides]), 64)
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.empty(parameter.shape).normal_(0, 0.3, generator=draw))
    return model, probe(model, torch.randint(64, (2, 32), generator=draw))[0]


def test_a_judgement_says_how_often_each_format_was_taken_and_the_mean_bits():
    _, layer = measured("precision=dynamic", "precision.error=0.08")
    shares = [layer.rows_4_bit, layer.rows_8_bit, layer.rows_16_bit, layer.rows_32_bit]
    assert sum(shares) == pytest.approx(1)
    assert 0.1 < shares[0] < 0.95 and shares[1] > 0.05
    mean = sum(share * width for share, width in zip(shares, (4, 8, 16, 32), strict=True))
    assert layer.index_bits == pytest.approx(mean, rel=1e-5)


def test_bits_of_queries_and_keys_count_by_their_numbers():
    _, layer = measured("precision=mixed_minimal")
    assert layer.index_bits == pytest.approx((2 * 16 + 4) / 3), "two heads of queries, one key"
    assert (layer.rows_16_bit, layer.rows_4_bit) == (pytest.approx(2 / 3), pytest.approx(1 / 3))


def test_choosing_a_format_is_counted_with_the_indexer():
    (exact, _), (chosen, _) = measured(), measured("precision=dynamic")
    each = 32 * (2 * 8 + 8)  # numbers of a layer: queries and keys
    assert flops(chosen, 32, 1.0)["indexer"] - flops(exact, 32, 1.0)["indexer"] == 2 * 11 * each


@pytest.mark.slow
def test_every_format_takes_part_in_the_training_of_a_cohort(tmp_path):
    names = options("precision")
    specs = [
        compose([*RUN, f"precision={name}", "precision.in_training=true", f"output_dir={tmp_path}"]) for name in names
    ]
    data, store = build_data(specs[0]), Store(tmp_path)
    wishes = [(spec, graph_of(spec, data.fingerprint).indexers) for spec in specs]
    make_base(store, specs[0], wishes[0][1].base, data, Dashboard(specs[0], "base", "dense", "base", silent=True))
    assert make_indexers(store, wishes, data, Dashboard(specs[0], "cohort", "dense", "cohort", silent=True)) == {}
    trained = {
        name: read_weights(store.folder(need))["0.to_key.weight"] for name, (_, need) in zip(names, wishes, strict=True)
    }
    assert all(weight.isfinite().all() for weight in trained.values())
    same = {pair for pair in itertools.combinations(names, 2) if torch.equal(*(trained[name] for name in pair))}
    assert same == {("int4", "int4_group"), ("int8", "int8_group")}, "8 dims are one group"
