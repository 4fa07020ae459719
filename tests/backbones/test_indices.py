"""Selections as an array in a file, and passes that replay one."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from backbones.test_offset import build

import dsa
from dsa.backbones import Cache, Pass
from dsa.indices import indices_of
from dsa.ops import Selection

TIME = 24


def text():
    return torch.randint(64, (1, TIME), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("own", [["selector.k=5"], ["selector.k=5", "index_every=2"], ["selector=dense"]],
                         ids=["own", "shared", "dense"])  # fmt: skip
@torch.no_grad()
def test_a_replayed_selection_gives_the_same_logits_also_in_parts(own, tmp_path):
    model = build("pattern=causal", *own)
    found = dsa.dump_indices(model, text(), tmp_path / "x.npy")
    assert found.dtype == np.int32 and found.shape == (TIME, len(model.routers), 5 if "selector.k=5" in own else TIME)
    assert (found[2, 0] >= 0).sum() == 3 and found[2, 0, 3] == -1, "the third token sees three keys"
    wanted = model(text())
    other = build("pattern=causal", *own)
    with torch.no_grad():
        for router in other.routers:
            if router.indexer is not None:
                router.indexer.to_query.weight.normal_()
    how = dsa.replay_indices(other, tmp_path / "x.npy")
    assert other.run(text(), how).logits.equal(wanted)
    assert own == ["selector=dense"] or not other(text()).equal(wanted), "its own selection is another"
    shuffled = dsa.replay_indices(other, found[..., ::-1].copy())
    assert other.run(text(), shuffled).logits.equal(wanted), "in any order"
    seen = []
    parts = replace(how, cache=Cache(), observe=seen.append)
    logits = torch.cat([other.run(part, parts).logits for part in text().tensor_split([10, 20, 21], 1)], 1)
    torch.testing.assert_close(logits, wanted, atol=1e-5, rtol=0)
    assert np.array_equal(indices_of(other, seen), found)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x: x[:, :1], r"1 layers; 2 of this model select"),
        (lambda x: x.astype(float), r"shape \(24, 2, 5\) of float64; give integers"),
        (lambda x: put(x, 3, 1, 0, 4), "token 3 of layer 1 attends to a later one"),
        (lambda x: put(x, 9, 0, 0, x[9, 0, 1]), "token 9 of layer 0 attends to one twice"),
        (lambda x: put(x, 9, 0, slice(None), -1), "token 9 of layer 0 attends to none"),
        (lambda x: put(x.astype(np.int64), 3, 1, 0, 2**40), "token 3 of layer 1 attends to a later one"),
        (lambda x: x[:0], r"shape \(0, 2, 5\) of int32; give integers"),
    ],
)
def test_indices_that_cannot_be_are_refused(change, said, tmp_path):
    model = build("pattern=causal", "selector.k=5")
    found = dsa.dump_indices(model, text(), tmp_path / "x.npy")
    with pytest.raises(ValueError, match=said):
        dsa.replay_indices(model, change(found.copy()))


def test_what_is_no_array_or_no_text_is_refused(tmp_path):
    model = build("pattern=causal", "selector.k=5")
    for name, content in {"no.npy": b"not an array", "empty.npy": b""}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"{name} is no npy file of numbers"):
            dsa.replay_indices(model, tmp_path / name)
    with pytest.raises(ValueError, match=r"tokens of shape \(1, 0\); give one text"):
        dsa.dump_indices(model, text()[:, :0], tmp_path / "x.npy")


@torch.no_grad()
def test_one_texts_selection_is_that_of_every_row(tmp_path):
    model = build("pattern=causal", "selector.k=5")
    how = dsa.replay_indices(model, dsa.dump_indices(model, text(), tmp_path / "x.npy"))
    torch.testing.assert_close(model.run(text().repeat(3, 1), how).logits, model(text()).repeat(3, 1, 1))
    two = replace(how, replay={site: Selection(*(x.repeat(2, *[1] * (x.dim() - 1)) for x in own))
                               for site, own in how.replay.items()})  # fmt: skip
    with pytest.raises(ValueError, match="the selection is of 2 rows, the pass of 3"):
        model.run(text().repeat(3, 1), two)


def put(x, token, layer, place, value):
    x[token, layer, place] = value
    return x


def test_a_text_longer_than_its_indices_and_heads_apart_are_refused(tmp_path):
    model = build("pattern=causal", "selector.k=5")
    how = dsa.replay_indices(model, dsa.dump_indices(model, text()[:, :9], tmp_path / "x.npy"))
    with pytest.raises(ValueError, match="the selection is of 9 tokens, the pass goes to 24"):
        model.run(text(), how)
    with pytest.raises(ValueError, match="2 groups of heads; the array has room for one"):
        dsa.dump_indices(build("pattern=multi_head", "selector.k=5"), text(), tmp_path / "x.npy")


def test_a_replayed_selection_teaches_an_indexer(tmp_path):
    model = build("pattern=causal", "selector.k=5")
    how = dsa.replay_indices(model, dsa.dump_indices(model, text(), tmp_path / "x.npy"))
    own, given = (model.run(text(), each).losses["indexer"] for each in (Pass(teach=True), replace(how, teach=True)))
    torch.testing.assert_close(given, own)
