"""The rotary embedding against rotation of complex numbers."""

import pytest
import torch

from dsa.ops import Rotation


@pytest.mark.parametrize("dim", [None, 6, 2, 0])
@pytest.mark.parametrize("rest", [(), (3,)])
def test_each_pair_turns_by_its_position(dim, rest):
    x = torch.randn(2, 4, 30, *rest, 8, dtype=torch.float64)
    size = 8 if dim is None else dim
    pairs = torch.complex(x[..., : size // 2], x[..., size // 2 : size])
    angle = torch.arange(30.0)[:, None] * 100.0 ** (-2 * torch.arange(size // 2) / max(size, 1))
    turned = pairs * torch.polar(torch.ones(()), angle).view(30, *[1] * len(rest), size // 2)
    wanted = torch.cat([turned.real, turned.imag, x[..., size:]], -1)
    torch.testing.assert_close(Rotation(30, 100.0)(x, dim), wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("offset", [0, 12])
def test_units_turn_by_the_position_of_their_first_token(offset):
    x, rotation = torch.randn(2, 4, 7, 8), Rotation(31, 100.0, offset=offset)
    turned = Rotation(60, 100.0)(torch.nn.functional.pad(x.repeat_interleave(4, 2), (0, 0, offset, 32 - offset)))
    assert torch.equal(rotation.every(4)(x), turned[:, :, offset : offset + 28 : 4])
    assert rotation.every(4) is rotation.every(4)


def test_an_offset_goes_on_where_earlier_tokens_stopped():
    x = torch.randn(2, 4, 30, 8)
    assert torch.equal(Rotation(18, 100.0, offset=12)(x[:, :, 12:]), Rotation(30, 100.0)(x)[:, :, 12:])


@pytest.mark.slow
def test_gradients_turn_back():
    x = torch.randn(2, 3, 5, 8, dtype=torch.float64, requires_grad=True)
    rotation = Rotation(5, 100.0)
    assert torch.autograd.gradcheck(rotation, x)
    assert torch.autograd.gradcheck(lambda y: rotation(y, 6), x)
