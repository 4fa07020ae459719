"""What the blocked backend promises beyond the contract: it computes no score and reads no key that it need not."""

import importlib

import pytest
import torch

from dsa.ops import Hash, IndexFeatures, Recency, TrueAttention, Zone, blocked, reference

FORCED = (Zone(first=4, keep="all"),)


def test_patterns_of_forced_zones_compute_no_score(monkeypatch):
    monkeypatch.setattr(Hash, "scores", lambda *_: pytest.fail("a score was computed"))
    blocked.select(Hash(0), FORCED, torch.full((1, 1, 50), 5))


def test_keys_outside_the_zones_are_not_read():
    q, k, v = (torch.randn(1, 2, 200, 8) for _ in range(3))
    k[:, :, :60], v[:, :, :60] = torch.nan, torch.nan
    selection = blocked.select(Recency(), FORCED, torch.full((1, 1, 200), 5))
    out, _ = blocked.attend(q, k, v, selection)
    assert out[:, :, 100:].isfinite().all()


def test_tiles_in_which_nothing_was_selected_are_left_out(monkeypatch):
    attend, tiles = (importlib.import_module(f"dsa.ops.blocked.{name}") for name in ("attend", "tiles"))
    monkeypatch.setattr(tiles, "TILE", 1)
    monkeypatch.setattr(tiles, "WIDTH", 16)
    seen = []
    logits = attend.Inputs.logits
    monkeypatch.setattr(attend.Inputs, "logits", lambda self, rows, keys, chosen: (
        seen.append((rows.stop, keys.start)), logits(self, rows, keys, chosen))[1])  # fmt: skip
    q, k, v = (torch.randn(1, 2, 64, 8) for _ in range(3))
    blocked.attend(q, k, v, blocked.select(Recency(), FORCED, torch.full((1, 1, 64), 5)))
    assert seen == [(16, 0), (32, 0), (32, 16), (48, 16), (48, 32), (64, 32), (64, 48)]


def test_what_several_indexers_learn_is_computed_once_for_all(monkeypatch):
    monkeypatch.setattr(importlib.import_module("dsa.ops.blocked.tiles"), "TILE", 8000)
    q, k = torch.randn(2, 2, 90, 8), torch.randn(2, 2, 90, 8)
    target = TrueAttention(q, k, reference.dense_logsumexp(q, k))
    several = [
        IndexFeatures(torch.randn(2, 1, 90, heads, 4).requires_grad_(), torch.randn(2, 1, 90 // unit, 4), unit=unit)
        for heads, unit in ((1, 1), (16, 1), (3, 4), (2, 7))
    ]
    alone = [blocked.indexer_loss(one, target, None) for one in several]
    seen, scores = [], TrueAttention.scores
    monkeypatch.setattr(
        TrueAttention, "scores", lambda self, rows, *more: seen.append(rows) or scores(self, rows, *more)
    )
    losses = blocked.indexer_losses(several, target)
    assert [(rows.start, rows.stop) for rows in seen] == [(start, min(start + 22, 90)) for start in range(0, 90, 22)]
    for one, loss, own in zip(several, losses, alone, strict=True):
        assert loss.equal(own)
        (gradient,), (by_itself,) = (torch.autograd.grad(x, one.queries, retain_graph=True) for x in (loss, own))
        assert gradient.equal(by_itself) and gradient.any()
        torch.testing.assert_close(loss, reference.indexer_loss(one, target, None))
