"""Data that JSON can hold: it has no infinite perplexity of a huge loss."""

import math
from typing import Any


def finite(value: Any) -> Any:
    """The same data with null for what JSON cannot hold."""
    if isinstance(value, dict):
        return {str(key): finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
