"""Which tokens are text, as the masks say that transformers hands to its attention."""

from collections.abc import Iterator

import torch
from jaxtyping import Bool
from torch import Tensor

HIDES = -1e4
"""What a mask adds to the logit of a key that is not to be seen, at most: its probability is then 0."""


def stretches(mask: Tensor | None, rows: int, keys: int) -> Iterator[tuple[slice, slice]]:
    """Rows and the tokens of them that are text: everything at once, or each row without its padding.

    Args:
        mask: of the attention; None where every token is text.
        keys: tokens so far.

    Raises:
        ValueError: padding within a text, or a mask that hides more than padding and later tokens.
    """
    text = None if mask is None else texts(mask, keys)
    if text is None or bool(text.all()):
        yield slice(0, rows), slice(0, keys)
        return
    for row, own in enumerate(text.expand(rows, -1).tolist()):
        if True not in own:
            continue
        first = own.index(True)
        last = keys - own[::-1].index(True)
        if not all(own[first:last]):
            raise ValueError(
                f"attention_mask: row {row} has padding within its text; pad on the left or on the right, and on the "
                "left alone where texts go on (generate)."
            )
        yield slice(row, row + 1), slice(first, last)


def texts(mask: Tensor, keys: int) -> Bool[Tensor, "row key"]:
    """Which tokens are text, in a mask of booleans or one that is added to logits: new ones that may see themselves,
    and earlier ones that the last new one may see.

    Raises:
        ValueError: the mask says more than that.
    """
    allowed = mask[:, 0, :, :keys] if mask.dtype == torch.bool else mask[:, 0, :, :keys] == 0
    if mask.dtype != torch.bool and bool((~allowed & (mask[:, 0, :, :keys] > HIDES)).any()):
        raise ValueError(
            "attention_mask: it adds to the logits of keys that may be seen. A routed layer takes masks that hide keys "
            f"({HIDES:g} or less) and nothing else."
        )
    before = keys - allowed.shape[1]
    own = allowed[:, :, before:].diagonal(dim1=-2, dim2=-1)
    text = torch.cat([allowed[:, -1, :before], own], -1)
    expected = torch.ones_like(allowed[0]).tril(before) & text[:, None]
    if bool(((allowed != expected) & own[..., None]).any()):  # what a token of padding sees is nobody's concern
        raise ValueError(
            "attention_mask: it hides other tokens than later ones and padding, as where several texts are packed into "
            "a row (position_ids that begin anew). A routed layer would attend across them: give each text a row."
        )
    return text
