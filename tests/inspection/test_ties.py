"""Ties of index scores: how often position decides, and what the rule costs."""

import json

import pytest
import torch
from conftest import QUIET, SMALL
from inspection.test_selection import observed

from dsa import build_model, compose, ops, train
from dsa.analysis.__main__ import main
from dsa.backbones import Observation, Pass
from dsa.inspection.ties import Later
from dsa.judging.ties import Tied, tied, tied_share
from dsa.ops import IndexFeatures, Zone

EVERYTHING = (Zone(first=None, last=0),)


def features(scores):
    """Index features of one head and dim whose score of a key is that key's number, for every query."""
    length = len(scores)
    keys = torch.tensor(scores, dtype=torch.float32).reshape(1, 1, length, 1)
    return IndexFeatures(queries=torch.ones(1, 1, length, 1, 1), keys=keys, weights=None)


@pytest.mark.parametrize(
    ("scores", "expected"), [([5, 4, 3, 2, 1, 0], 0), ([3, 3, 3, 3, 3, 3], 4), ([9, 2, 2, 1, 0, 9], 3)]
)
def test_a_tie_is_a_kept_key_that_scores_as_one_left_out(scores, expected):
    index, k = features(scores), 2
    limit = torch.arange(1, 7).clamp(max=k)[None, None]
    seen = observed(index, length=6, k=k)._replace(scorer=index, selection=ops.select(index, EVERYTHING, limit))
    assert tied(seen) == (4, expected)
    assert tied_share([tied(seen)]) == expected / 4


@pytest.mark.parametrize(
    ("scores", "contested", "expected"),
    [([5, 4, 3, 2], 4, 0), ([3, 3, 3, 3], 4, 4), ([2, 2, 9, 2], 4, 2)],  # of blocks, of which a query keeps one
)
def test_blocks_tie_as_keys_do(scores, contested, expected):
    length, unit = 8, 2
    index = IndexFeatures(torch.ones(1, 1, length, 1, 1), features(scores).keys, weights=None, unit=unit)
    limit = torch.full((1, 1, length), 4)
    zones = (Zone(first=0, keep="all"), Zone(first=None, last=1, keep="selector"))
    kept = ops.select(index, zones, limit)
    seen = observed(index, length=length)._replace(scorer=index, zones=zones, selection=kept)
    told = plainly_tied(scores, kept, unit)
    assert tied(seen) == told
    assert (told.contested, told.tied) == (contested, expected)


def test_rows_shorter_than_a_block_have_none_that_tie():
    index = IndexFeatures(torch.ones(1, 1, 6, 1, 1), torch.zeros(1, 1, 0, 1), weights=None, unit=8)
    kept = ops.select(index, EVERYTHING, torch.full((1, 1, 6), 3))
    assert tied(observed(index, length=6)._replace(scorer=index, selection=kept)) is None


def plainly_tied(scores, kept, unit):
    """Queries that left a whole block out, and those that kept an equal one: by loops."""
    contested = tied = 0
    for query in range(kept.counts.shape[-1]):
        own = {int(key) for key in kept.positions[0, 0, query, : kept.counts[0, 0, query]]}
        blocks = range(query // unit)
        stay = [scores[block] for block in blocks if set(range(block * unit, (block + 1) * unit)) <= own]
        out = [scores[block] for block in blocks if block * unit not in own]
        contested += bool(stay and out)
        tied += bool(stay and out and min(stay) == max(out))
    return Tied(contested, tied)


def test_keys_tie_by_the_scores_that_rank_them_which_a_search_does_not_have_of_all():
    length, model = 40, build_model(compose(["indexer=hisa", "indexer.block=4", "indexer.blocks=3", "pattern=causal",
                                             "selector.k=10", "indexer.init=0.5", *SMALL]), 64)  # fmt: skip
    seen: list[Observation] = []
    with torch.no_grad():
        model.run(torch.arange(length)[None], Pass(observe=seen.append))
        ranked = seen[0].scorer.scores(slice(0, length), slice(0, length))[0, 0]
    assert seen[0].selection is not None and ranked.isinf().any(), "most blocks are not searched"
    found = Tied(0, 0)
    for query in range(10, length):
        kept = seen[0].selection.positions[0, 0, query, : seen[0].selection.counts[0, 0, query]].tolist()
        out = [key for key in range(query + 1) if key not in kept]
        same = min(ranked[query, kept]) == max(ranked[query, out])
        found = Tied(found.contested + 1, found.tied + bool(same))
    assert tied(seen[0]) == found and 0 < found.tied < found.contested


def test_another_zone_has_no_part_in_a_tie():
    index = features([1, 5, 2, 7, 7, 7])  # kept and left out of the strided zone: 7 and 5, 2 and 1
    zones = (Zone(first=1, keep="all"), Zone(first=None, last=2, step=2, keep="selector"))
    limit = torch.full((1, 1, 6), 3)
    seen = observed(index, length=6)._replace(scorer=index, zones=zones, selection=ops.select(index, zones, limit))
    assert tied(seen).tied == 0


@pytest.mark.parametrize("backend", ["reference", "blocked"])
def test_the_later_of_equal_keys_is_kept_and_a_better_one_before_both(backend):
    index, limit = features([4, 0, 4, 0, 4, 0]), torch.full((1, 1, 6), 2)
    earlier = ops.select(index, EVERYTHING, limit, backend=backend).positions[0, 0, -1].tolist()
    later = ops.select(Later(index), EVERYTHING, limit, backend=backend).positions[0, 0, -1].tolist()
    assert (earlier, later) == ([0, 2], [2, 4])


@pytest.mark.slow
def test_the_command_tells_one_head_whose_relu_clips_many_keys_to_nothing_from_four(outputs, tmp_path, capsys):
    common = [*SMALL, *QUIET, "pattern=causal", "selector.k=8", "recipe.dense.steps=2", "recipe.warmup.steps=2",
              "judge=swap", f"output_dir={outputs}"]  # fmt: skip
    runs = [train(compose([*common, f"indexer={name}"])) for name in ("h4d8", "h1d8")]
    file = tmp_path / "there" / "ties.json"
    assert main(["ties", *(run.folder for run in runs), "--json", str(file)]) == 0
    four, one = json.loads(file.read_text())
    assert runs[0].run_id in capsys.readouterr().out
    assert 0 <= 4 * four["tied"] < one["tied"] <= 1, (four["tied"], one["tied"])
    assert four["loss_earlier"] == pytest.approx(runs[0].swap_val_loss, abs=2e-2)
    assert one["difference"] == pytest.approx(one["loss_later"] - one["loss_earlier"])
    dense = train(compose([*common, "selector=window"]))
    assert main(["ties", dense.folder]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ") and "none can tie" in told
