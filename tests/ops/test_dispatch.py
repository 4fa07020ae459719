"""Who serves a call: the backend that is named, or the next that covers it, and that is told once."""

import logging

import pytest
import torch

from dsa import ops
from dsa.ops import Call, IndexFeatures, Selection, TrueAttention, Zone, dispatch, native, reference
from dsa.ops.scorers import Positional

CAUSAL = (Zone(None),)
needs_kernels = pytest.mark.skipif(native.unavailable() is not None, reason=str(native.unavailable()))


class Oldest(Positional):
    """A scorer that the kernels do not know: the farthest keys win."""

    def scores(self, rows, columns, offset=0, device=None):
        key = torch.arange(columns.start, columns.stop, device=device)
        return -key.expand(rows.stop - rows.start, -1).float()[None, None]


@pytest.fixture
def told(caplog):
    dispatch.tell.cache_clear()
    with caplog.at_level(logging.WARNING, "dsa.ops.dispatch"):
        yield lambda: [record.message for record in caplog.records]
    dispatch.tell.cache_clear()


def features(**options):
    torch.manual_seed(0)
    return IndexFeatures(torch.randn(1, 1, 20, 2, 4), torch.randn(1, 1, 20 // options.get("unit", 1), 4), **options)


@needs_kernels
@pytest.mark.parametrize("backend", ["auto", "cpu"])
def test_a_call_that_the_kernels_do_not_cover_is_served_by_the_next_and_told_once(told, backend):
    limit = torch.full((1, 1, 20), 3)
    for _ in range(2):
        got = ops.select(Oldest(), CAUSAL, limit, backend=backend)
        assert torch.equal(got.positions, reference.select(Oldest(), CAUSAL, limit).positions)
    (message,) = told()
    assert "the blocked backend" in message
    assert "have no scores of a Oldest" in message


@needs_kernels
@pytest.mark.parametrize(
    ("call", "words"),
    [
        (Call((torch.ones(1).double(),)), "compute in float32, not in float64"),
        (Call(device=torch.device("meta")), "compute on the CPU, not on meta"),
        (Call(scorer=features(accumulate=torch.float16)), "accumulate index scores in float32, and in bfloat16 of"),
        (Call(learner=features(unit=4)), "learns token by token"),
        (Call(cap=30.0), "know no cap of the attention logits"),
        (Call(scorer=TrueAttention(*[torch.ones(1, 1, 1, 1)] * 2, torch.ones(1, 1, 1), cap=30.0)), "know no cap"),
    ],
)
def test_the_kernels_say_what_they_do_not_cover(call, words):
    assert words in native.covers(call)
    assert dispatch.serving("cpu", call).name == "blocked"


@needs_kernels
def test_what_the_kernels_cover_they_serve_in_silence(told):
    for name in ("auto", "cpu"):
        assert dispatch.serving(name, Call((torch.ones(1),), scorer=features(unit=4))) is native
    assert not told()


@pytest.mark.parametrize("name", ["reference", "blocked"])
def test_a_backend_that_is_named_serves(told, name):
    assert dispatch.serving(name, Call((torch.ones(1),))).name == name
    assert not told()


def test_without_a_compiler_the_blocked_backend_serves_and_says_what_is_lost(told, monkeypatch):
    monkeypatch.setattr(native, "unavailable", lambda: "no C++ compiler found.")
    assert dispatch.serving("auto", Call()).name == "blocked"
    (message,) = told()
    assert message.startswith("attention runs in part on the blocked backend, which is slower: no C++ compiler found.")
    with pytest.raises(ValueError, match=r"ops = cpu: no C\+\+ compiler found\. Or give ops=auto"):
        ops.checked_backend("cpu")


def test_an_unknown_backend_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match=r"ops = cuda: no such backend\. Give auto, blocked, cpu, reference, triton"):
        ops.checked_backend("cuda")


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize("backend", ["reference", "blocked", "cpu"])
@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ((1, 1, 64), r"attend: the selection has positions \(1, 1, 64, 3\) .* for 2 rows of 64 queries"),
        ((2, 1, 40), r"positions \(2, 1, 40, 3\) .* for 2 rows of 64 queries"),
        ((2, 3, 64), "3 groups for 4 heads; give a divisor"),
    ],
)
def test_a_selection_of_other_rows_queries_or_heads_is_refused(backend, shape, said):
    """Kernels go by its shape: what is not there they would read from elsewhere."""
    q, k, v = (torch.randn(2, 4, 64, 8) for _ in range(3))
    selection = ops.Selection(torch.zeros(*shape, 3, dtype=torch.int32), torch.ones(*shape, dtype=torch.int32))
    for op in (ops.attend, ops.attend_with_target):
        with pytest.raises(ValueError, match=said):
            op(q, k, v, selection, backend=backend)
    uneven = ops.Selection(torch.zeros(2, 1, 64, 3, dtype=torch.int32), torch.ones(2, 1, 40, dtype=torch.int32))
    with pytest.raises(ValueError, match="attend: the selection has positions"):
        ops.attend(q, k, v, uneven, backend=backend)


@pytest.mark.usefixtures("untyped")
def test_shapes_scales_and_caps_that_do_not_fit_are_refused():
    q, k = torch.zeros(1, 6, 5, 8), torch.zeros(1, 4, 5, 8)
    selection = Selection(torch.zeros(1, 1, 5, 1, dtype=torch.int32), torch.ones(1, 1, 5, dtype=torch.int32))
    with pytest.raises(ValueError, match="a multiple of their heads"):
        ops.attend(q, k, k, selection)
    with pytest.raises(ValueError, match=r"sink has shape \(4,\); give one logit for each of 6 heads"):
        ops.attend(q, q, q, selection, torch.zeros(4))
    with pytest.raises(ValueError, match="scale = 0; give a number above 0"):
        ops.attend(q, q, q, selection, scale=0)
    with pytest.raises(ValueError, match="cap = 0; give a number above 0, or None for logits without a cap"):
        ops.attend(q, q, q, selection, cap=0)


@pytest.mark.parametrize("kept", [3, 20], ids=["a few keys", "every key"])
def test_a_cap_reaches_attention_target_selection_and_loss_whoever_serves(kept):
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 2, 20, 4) * 3 for _ in range(3))
    selection = ops.select(features(), CAUSAL, torch.full((1, 1, 20), kept))
    out, target = ops.attend_with_target(q, k, v, selection, cap=0.7)
    wanted, logsumexp = reference.attend(q, k, v, selection, cap=0.7)
    torch.testing.assert_close(out, wanted)
    torch.testing.assert_close(ops.attend(q, k, v, selection, cap=0.7), (wanted, logsumexp))
    torch.testing.assert_close(target.logsumexp, logsumexp)
    dense = TrueAttention(q, k, ops.dense_logsumexp(q, k, cap=0.7), 2, cap=0.7)
    torch.testing.assert_close(dense.logsumexp, reference.dense_logsumexp(q, k, cap=0.7))
    limit = torch.full((1, 2, 20), 5)
    assert torch.equal(ops.select(dense, CAUSAL, limit).positions, reference.select(dense, CAUSAL, limit).positions)
    apart = ops.select(dense, ((Zone(1, keep="all"),), CAUSAL), limit)
    assert torch.equal(apart.positions[:, 1, :, :5], ops.select(dense, CAUSAL, limit).positions[:, 1])
    for of, scope in ((target, selection), (dense._replace(groups=1), None)):
        loss = ops.indexer_loss(features(), of, scope)
        torch.testing.assert_close(loss, reference.indexer_loss(features(), of, scope))
