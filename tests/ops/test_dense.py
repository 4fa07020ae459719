"""Dense attention: the definition, and the number format in which short rows learn."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from dsa import ops
from dsa.ops import Selection, dense


def drawn(time, keys, dtype=torch.bfloat16, learns=True):
    torch.manual_seed(0)
    shapes = (2, 4, time, 8), (2, 2, keys, 8), (2, 2, keys, 8)
    return [torch.randn(shape).to(dtype).requires_grad_(learns) for shape in shapes]


def fused(q, k, v):
    return scaled_dot_product_attention(q, k, v, is_causal=True, scale=0.3, enable_gqa=True)


@pytest.mark.parametrize(("time", "keys"), [(20, 20), (5, 20), (1, 20)])
def test_every_query_attends_to_every_key_up_to_itself(time, keys):
    q, k, v = drawn(time, keys, torch.float32)
    mask = torch.ones(time, keys).tril(keys - time) > 0
    logits = 0.3 * q @ k.repeat_interleave(2, 1).mT
    wanted = logits.masked_fill(~mask, -torch.inf).softmax(-1) @ v.repeat_interleave(2, 1)
    torch.testing.assert_close(ops.attend_dense(q, k, v, 0.3), wanted)


@pytest.mark.parametrize("rounded", [True, False], ids=["bfloat16", "rounded by autocast"])
@pytest.mark.parametrize(
    ("keys", "learns", "exact"), [(dense.SHORT, True, True), (dense.SHORT + 1, True, False), (20, False, False)]
)
def test_short_rows_learn_in_float32_on_a_cpu_and_nothing_else_does(keys, learns, exact, rounded):
    q, k, v = drawn(keys, keys, torch.bfloat16 if rounded else torch.float32, learns)
    with torch.autocast("cpu", torch.bfloat16):
        got, narrow = ops.attend_dense(q, k, v, 0.3), fused(q, k, v)
    wide = fused(q.float(), k.float(), v.float()).to(torch.bfloat16)
    assert got.dtype == narrow.dtype == torch.bfloat16
    assert got.equal(wide if exact else narrow) and not wide.equal(narrow)
    if learns:
        got.sum().backward()
        assert q.grad.dtype == q.dtype and q.grad.any() and v.grad.any()


def test_a_selection_that_keeps_everything_learns_as_dense_attention_does():
    q, k, v = drawn(20, 20)
    counts = torch.arange(1, 21)
    positions = torch.where(torch.arange(20) < counts[:, None], torch.arange(20), -1)
    everything = Selection(positions.expand(2, 1, -1, -1), counts.expand(2, 1, -1))
    with torch.autocast("cpu", torch.bfloat16):
        assert ops.attend(q, k, v, everything, scale=0.3)[0].equal(ops.attend_dense(q, k, v, 0.3))
