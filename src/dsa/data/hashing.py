"""Stable hashes, and the random generators that follow from them (Python's own hash() differs between runs)."""

import hashlib
from collections.abc import Iterable

import numpy as np


def digest(*parts: object, size: int = 8) -> str:
    """Hex BLAKE2b of the parts' `repr`, `size` bytes long. Give parts whose repr is their value."""
    return hashlib.blake2b(repr(parts).encode(), digest_size=size).hexdigest()


def digest_bytes(chunks: Iterable[bytes | memoryview], size: int = 16) -> str:
    """Hex BLAKE2b of the chunks and of where each one ends."""
    whole = hashlib.blake2b(digest_size=size)
    for chunk in chunks:
        whole.update(len(chunk).to_bytes(8, "little"))
        whole.update(chunk)
    return whole.hexdigest()


def generator(*parts: object) -> np.random.Generator:
    """A generator keyed by the parts alone; 128 bits, so that no two (seed, stage, step) share a stream."""
    return np.random.Generator(np.random.Philox(key=int(digest(*parts, size=16), 16)))
