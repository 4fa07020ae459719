"""What selections kept and missed: small cases whose truth is known, and the command on a trained run."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import QUIET, SMALL

from dsa import compose, ops, train
from dsa.analysis.__main__ import main
from dsa.artifacts.results import RunResult
from dsa.backbones import Observation
from dsa.data import MQAR, Induction
from dsa.inspection.answers import Answers, answers
from dsa.inspection.decisions import decisions
from dsa.inspection.kinds import kind_of, kinds
from dsa.inspection.overlap import Overlap
from dsa.inspection.query_blocks import BLOCK, query_blocks
from dsa.inspection.rank import effective_rank, logit_values
from dsa.inspection.tally import Tally, distance_names, distances, tally
from dsa.judging.probe import measure as probed
from dsa.ops import Mixed, Picked, Recency, Scorer, TrueAttention, Zone
from dsa.patterns import Choice

pytestmark = pytest.mark.slow

EVERYTHING = (Zone(first=None, last=0),)


def observed(scorer: Scorer | None, length: int = 24, k: int = 5, seed: int = 0) -> Observation:
    """A layer of two heads that kept what a scorer likes best; None: the keys of highest attention."""
    draw = torch.Generator().manual_seed(seed)
    q, key = (3 * torch.randn(1, 2, length, 4, generator=draw) for _ in range(2))
    limit = torch.arange(1, length + 1).clamp(max=k)[None, None]
    truth = TrueAttention(q, key, ops.dense_logsumexp(q, key))
    chosen = ops.select(truth if scorer is None else scorer, EVERYTHING, limit)
    return Observation(0, q, key, ops.dense_logsumexp(q, key), chosen, None, None, EVERYTHING)


def by_distance(seen: Observation) -> Tally:
    parts = list(query_blocks(seen))
    bins = len(distance_names(seen.queries.shape[2]))
    return sum((tally(part, distances(part), bins) for part in parts[1:]), tally(parts[0], distances(parts[0]), bins))


def test_the_oracle_finds_every_best_key_and_its_mass_is_the_best_there_is():
    seen = observed(None)
    (part,) = query_blocks(seen)
    assert torch.equal(part.kept, part.best)
    total = by_distance(seen)
    assert torch.equal(total.found, total.best)
    assert total.queries == 24 - 5
    assert float(total.attention.sum()) == pytest.approx(total.queries, rel=1e-5)
    mass = float((part.attention * part.kept).sum() / 24)
    assert mass == pytest.approx(probed(seen).oracle_mass, rel=1e-5)


@pytest.mark.parametrize("length", [24, BLOCK + 40])
def test_a_window_keeps_only_near_keys_and_the_numbers_are_the_probes(length):
    seen, reference = observed(Recency(), length), probed(observed(Recency(), length))
    kept = by_distance(seen).kept
    assert kept[:4].tolist() == [length - 5, length - 5, 2 * (length - 5), length - 5]  # 0, 1, 2-3, 4
    assert not kept[4:].any()
    parts = list(query_blocks(seen))
    mass = sum(float((part.attention * part.kept).sum()) for part in parts) / length
    assert mass == pytest.approx(reference.mass, rel=1e-5)
    total = by_distance(seen)
    assert float(total.found.sum() / total.best.sum()) == pytest.approx(reference.recall, rel=1e-5)


def test_blocks_of_queries_give_what_one_block_gives(monkeypatch):
    whole = by_distance(observed(Recency(), 50))
    monkeypatch.setattr("dsa.inspection.query_blocks.BLOCK", 7)
    parts = by_distance(observed(Recency(), 50))
    for name, value in vars(whole).items():
        assert torch.allclose(torch.as_tensor(getattr(parts, name)), torch.as_tensor(value)), name


def test_distances_fall_into_the_bins_that_their_names_say():
    assert distance_names(12) == ["0", "1", "2–3", "4–7", "8–11"]
    (part,) = query_blocks(observed(Recency(), 12))
    assert distances(part)[11].tolist() == [4, 4, 4, 4, 3, 3, 3, 3, 2, 2, 1, 0]


def test_a_layer_overlaps_wholly_with_itself_and_not_with_its_opposite():
    near, far = observed(Recency(), k=4), observed(Recency(), k=4)
    mask = torch.arange(24)[:, None] >= torch.arange(24)
    first = mask & (torch.arange(24) < 4)  # the four first keys
    overlap = Overlap(3)
    (a,), (b,) = query_blocks(near), query_blocks(far)
    overlap.add([a, b, a._replace(kept=first[None])])
    found = overlap.matrices()
    assert found["selected"][0][1] == 1.0
    common = [len({t - i for i in range(4)} & set(range(4))) / 4 for t in range(4, 24)]
    assert found["selected"][0][2] == pytest.approx(sum(common) / len(common))
    assert found["best"][0][2] == 1.0
    chance = [4 / (t + 1) for t in range(4, 24)]
    assert found["chance"][0][1] == pytest.approx(sum(chance) / len(chance))


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_a_matrix_of_equal_singular_values_has_its_rank_as_effective_rank(rank):
    draw = torch.Generator().manual_seed(1)
    left, right = (torch.linalg.qr(torch.randn(20, rank, generator=draw, dtype=torch.float64)).Q for _ in range(2))
    assert effective_rank(torch.linalg.svdvals(left @ right.mT)) == pytest.approx(rank, rel=1e-6)
    assert effective_rank(torch.zeros(3)) == 0.0


@pytest.mark.parametrize("heads", [3, 1])
def test_the_rank_of_logits_is_that_of_the_whole_centred_matrix(heads):
    """Each query head with its own keys, and all with the same."""
    draw = torch.Generator().manual_seed(2)
    q, k = (torch.randn(count, 30, 4, generator=draw, dtype=torch.float64) for count in (3, heads))
    logits = q @ k.mT
    logits -= logits.mean(-1, keepdim=True)
    single, stacked = logit_values(q, k)
    assert len(single) == 3
    for head in range(3):
        assert effective_rank(single[head]) == pytest.approx(effective_rank(torch.linalg.svdvals(logits[head])))
    assert effective_rank(stacked) == pytest.approx(effective_rank(torch.linalg.svdvals(logits.flatten(0, 1))))
    assert effective_rank(stacked) <= 12 + 1e-9


def test_the_answer_of_an_asked_query_is_found_in_its_row():
    source = MQAR(pairs=2, gap=3)
    batch = source.sample(1, 24, np.random.default_rng(0))
    (part,) = query_blocks(observed(Recency(), 24, k=3))
    found = answers(part, batch.tokens[0], batch.targets[0])
    assert found.queries == 2
    assert found.kept == 0  # the gap hides the answer from a window
    everything = part._replace(kept=torch.ones_like(part.kept).tril())
    assert answers(everything, batch.tokens[0], batch.targets[0]).kept == 2
    assert Answers().row()["kept"] is None


def test_tokens_have_kinds():
    assert [kind_of(t) for t in ("a", "é1", "7", " ", "\t", ");", "\n", "�", "\0", "")] == [
        *["letters"] * 2, "digits", *["space"] * 2, "punctuation", "newline", *["other"] * 3,
    ]  # fmt: skip
    of = kinds(MQAR(keys=2, values=3, noise=1))
    assert [of.names[i] for i in of.of] == ["keys", "keys", "values", "values", "values", "noise"]
    assert kinds(Induction(vocab=8)).of.tolist() == [0, 0, 1, 1, 1, 1, 1, 1]

    class Own:
        vocab_size = 4

    assert kinds(Own()).of.tolist() == [0, 0, 0, 0]


def test_what_was_chosen_and_picked_is_counted_by_kind_of_query():
    entry = torch.tensor([[[0, 1, 1, 1], [0, 0, 0, 1]]])  # one row, two groups of heads, four queries
    picked = Picked(torch.tensor([1]), torch.zeros(1, 2), ("h1d8", "h2d8"))
    seen = observed(Recency(), 4)._replace(
        choice=Choice(entry, torch.ones(1, 2, 4), ("near", "all")), features=Mixed(1, 4, 0, [], picked)
    )
    kind, names = torch.tensor([0, 1, 1, 2]), ["first token", "keys", "values", "noise"]
    pattern, indexer = (sum(row[1:], row[0]).row() for row in zip(*2 * [decisions(seen, kind, names)], strict=True))
    first, second = pattern["groups"]
    assert pattern["what"] == "pattern" and pattern["names"] == ["near", "all"]
    assert first["every"] == {"near": 0.25, "all": 0.75} and second["every"] == {"near": 0.75, "all": 0.25}
    assert first["labels"] == {
        "first token": {"near": 1, "all": 0}, "keys": {"near": 0, "all": 1}, "values": {"near": 0, "all": 1},
    }  # fmt: skip
    assert second["labels"]["keys"] == {"near": 1, "all": 0}
    taken = {"h1d8": 0, "h2d8": 1}
    assert indexer["what"] == "indexer" and indexer["groups"] == [{"every": taken, "labels": {"rows": taken}}]


def test_attention_to_everything_is_refused():
    seen = observed(Recency())._replace(selection=None)
    with pytest.raises(ValueError, match="nothing was selected"):
        next(query_blocks(seen))


def test_the_command_names_what_is_wrong(tmp_path, capsys):
    for folder, why in ((tmp_path / "nowhere", "no such folder"), (tmp_path, "no result; give the folder of a")):
        assert main(["selection", str(folder)]) == 2
        assert why in capsys.readouterr().err
    (tmp_path / "config.yaml").touch()
    assert main(["selection", str(tmp_path)]) == 2
    assert "the run is not finished" in capsys.readouterr().err
    named = dict.fromkeys(("run_id", "study", "model", "data", "recipe"), "x")
    result = RunResult(**named, status="finished", condition={}, seq_len=64, seed=0)
    replace(result, status="failed").write(tmp_path)
    assert main(["selection", str(tmp_path)]) == 2
    assert "status failed" in capsys.readouterr().err


def test_a_trained_run_end_to_end(outputs, capsys, monkeypatch):
    monkeypatch.setattr("dsa.inspection.measure.ROWS", 2)  # as many as a judgement looks at, a quarter of eight
    steps = ["recipe.dense.steps=12", "recipe.warmup.steps=8", "recipe.sparse.steps=4", "dtype=fp32"]
    run = [*SMALL, *QUIET, *steps, "pattern=causal", f"output_dir={outputs}"]
    result = train(compose([*run, "indexer=h2d8", "selector.k=8"]))
    assert main(["selection", result.folder]) == 0
    folder = outputs / "runs" / result.run_id / "selection"
    found = json.loads((folder / "selection.json").read_text())
    assert found["rows"] == 2  # both looked at the same rows
    for mine, theirs in zip(found["layers"], result.selection["layers"], strict=True):
        assert mine["mass"] == pytest.approx(theirs["mass"], rel=1e-4)
        assert mine["oracle_mass"] == pytest.approx(theirs["oracle_mass"], rel=1e-4)
        assert mine["recall"] == pytest.approx(theirs["recall"], abs=1e-3)
        for what in ("distance", "kinds"):
            for name in ("attention", "missed", "kept"):
                assert sum(row[name] for row in mine[what]) == pytest.approx(1.0)
        assert (mine["rank"]["indexer_heads"], mine["rank"]["indexer_dim"]) == (2, 8)
    assert found["loss"]["sparse"] == pytest.approx(result.val_loss, rel=1e-5)
    text = (folder / "selection.md").read_text()
    for name in ("distance", "kinds", "overlap", "rank", "loss"):
        assert f"({name}.png)" in text
        assert (folder / f"{name}.png").stat().st_size and (folder / f"{name}.svg").stat().st_size
    assert not any(layer["decided"] for layer in found["layers"])
    dense = train(compose([*run, "recipe=dense"])).folder
    capsys.readouterr()
    assert main(["selection", str(dense)]) == 2
    assert "its attention is dense" in capsys.readouterr().err


def test_a_run_that_chooses_patterns_and_picks_indexers_shows_which(outputs, monkeypatch):
    monkeypatch.setattr("dsa.inspection.measure.ROWS", 2)  # as many as a judgement looks at
    own = ["pattern=adaptive", "pattern.groups=2", "indexer=dynamic", "indexer.members=[h1d8,h2d8]", "indexer.prefix=8"]
    for name in ("near", "all", "sinks"):
        own.append(f"pattern.patterns.{name}.budget=9")
    short = ["pattern.patterns.near.window=4", "pattern.patterns.sinks.window=4", "recipe=judge", "judge=swap"]
    steps = ["recipe.dense.steps=2", "recipe.warmup.steps=4", "dtype=fp32", f"output_dir={outputs}"]
    result = train(compose([*SMALL, *QUIET, *own, *short, *steps]))
    assert main(["selection", result.folder]) == 0
    folder = Path(result.folder) / "selection"
    found = json.loads((folder / "selection.json").read_text())
    for mine, theirs in zip(found["layers"], result.selection["layers"], strict=True):
        pattern, indexer = mine["decided"]
        assert [group["every"] for group in pattern["groups"]] == [pytest.approx(one) for one in theirs["chosen"]]
        assert indexer["groups"][0]["every"] == pytest.approx(theirs["picked"])
    text = (folder / "selection.md").read_text()
    for what in ("pattern", "indexer"):
        assert f"(chosen_{what}.png)" in text and (folder / f"chosen_{what}.png").stat().st_size
