"""Keys that are chosen in blocks of four, with an open block that is always kept: trained and judged like any other."""

import pytest
import torch
from conftest import QUIET, SMALL
from indexers.pooled import UNIT

from dsa import build_model, compose, train
from dsa.backbones import Pass
from dsa.judging.cost import indexer_megabytes

RUN = [*SMALL, *QUIET, "seq_len=62", "dtype=fp32", "pattern=causal", "selector.k=14"]
OWN = [
    "allow_targets=[indexers]", "indexer._target_=indexers.pooled.MeanPooled", "indexer.heads=2", "indexer.dim=8",
    "indexer.rotary_dim=0", "~indexer.rotary_dim",
]  # fmt: skip
SHIPPED = ["indexer=block_mean", f"indexer.unit={UNIT}", "indexer.dim=8"]
BOTH = pytest.mark.parametrize("indexer", [OWN, SHIPPED], ids=["own", "shipped"])
BACKENDS = ["auto", "reference", "blocked"]


@BOTH
@pytest.mark.parametrize("ops", BACKENDS)
def test_a_query_keeps_its_open_block_and_the_best_whole_ones(ops, indexer):
    tokens, seen = torch.randint(64, (2, 62), generator=torch.Generator().manual_seed(0)), []
    model = build_model(compose([*RUN, *indexer, f"ops={ops}"]), 64).eval()
    with torch.no_grad():
        model.run(tokens, Pass(teach=True, observe=seen.append))
    for layer in seen:
        scores = layer.cast.scores(slice(0, 62), slice(0, 62 // UNIT))
        for row in range(2):
            for t in range(62):
                whole = (t + 1) // UNIT
                tail = list(range(whole * UNIT, t + 1))
                best = sorted(range(whole), key=lambda u: (-float(scores[row, 0, t, u]), u))[: (14 - len(tail)) // UNIT]
                expected = sorted([unit * UNIT + n for unit in best for n in range(UNIT)] + tail)
                assert [p for p in layer.selection.positions[row, 0, t].tolist() if p >= 0] == expected, (row, t)


@BOTH
@pytest.mark.slow
def test_every_backend_trains_and_judges_it_to_the_same_numbers(outputs, indexer):
    steps = ["recipe.dense.steps=2", "recipe.warmup.steps=4", "recipe.sparse.steps=2"]
    found = [train(compose([*RUN, *indexer, *steps, f"ops={ops}", f"output_dir={outputs / ops}"])) for ops in BACKENDS]
    for ops, result in zip(BACKENDS, found, strict=True):
        mean = result.selection["mean"]
        assert 0 < mean["mass"] <= 1 and mean["kl"] > 0 and mean["recall"] > 0, ops
        for name in ("val_loss", "swap_val_loss", "mean_k"):
            assert getattr(result, name) == pytest.approx(getattr(found[0], name), abs=1e-3), (ops, name)
        for name, value in mean.items():
            assert value == pytest.approx(found[0].selection["mean"][name], abs=5e-3), (ops, name)


@BOTH
def test_its_memory_counts_one_key_for_each_block(indexer):
    model = build_model(compose([*RUN, *indexer]), 64)
    weights = sum(p.numel() for p in model.groups()["indexers"])
    assert indexer_megabytes(model, 62) == pytest.approx((weights + 2 * 8 * (62 // UNIT)) * 4 / 2**20)
