"""What the blocked backend promises beyond the contract: it computes no score and reads no key that it need not."""

import importlib

import pytest
import torch

from dsa.ops import Hash, Recency, Zone, blocked

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
