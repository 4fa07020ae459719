"""Tokens that a model knows."""

import torch
from jaxtyping import Int
from torch import Tensor


def check_tokens(tokens: Int[Tensor, "batch time"], size: int, wait: bool = False) -> None:
    """Refuse tokens that a model does not know; compiled code goes on without looking.

    Args:
        size: of the vocabulary.
        wait: look at those in another device's memory too, for which that device is waited for.

    Raises:
        ValueError: a token is none of the model's.
    """
    if not tokens.numel() or not (wait or tokens.device.type == "cpu") or torch.compiler.is_compiling():
        return
    least, most = (int(bound) for bound in tokens.aminmax())
    if least < 0 or most >= size:
        raise ValueError(f"tokens: from {least} to {most}, but the model has tokens 0 to {size - 1}.")
