"""Which part of a text is for training and which for validation: fixed by the documents alone."""

from collections.abc import Iterable
from typing import NamedTuple

from dsa.data.hashing import digest

SHARE = 0.1  # of the documents, or of a single document's length, that is held out


class Texts(NamedTuple):
    """Documents, by use."""

    train: list[str]
    validation: list[str]


def split(documents: Iterable[tuple[str, str]], share: float = SHARE) -> Texts:
    """Splits (name, text) documents: a document is held out by the hash of its name, so its side never changes.

    A single document gives its last `share`. Should all of a few documents fall on one side, the one with the
    lowest hash (the first to be held out as `share` grows) is the validation part, the rest is for training.
    """
    ranked = [(_rank(name), text) for name, text in documents]
    if len(ranked) == 1:
        text = ranked[0][1]
        cut = len(text) - round(len(text) * share)
        return Texts([text[:cut]], [text[cut:]])
    held_out = {rank for rank, _ in ranked if rank < share}
    if len(held_out) in (0, len({rank for rank, _ in ranked})):
        held_out = {min(rank for rank, _ in ranked)} if ranked else set()
    return Texts(
        [text for rank, text in ranked if rank not in held_out],
        [text for rank, text in ranked if rank in held_out],
    )


def _rank(name: str) -> float:
    """In [0, 1), evenly spread over names."""
    return int(digest(name), 16) / 2**64
