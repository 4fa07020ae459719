"""Short hashes of plain data."""

import hashlib
import json
from typing import Any

ENCODE = json.JSONEncoder(sort_keys=True, default=str).encode


def digest(value: Any, length: int = 8) -> str:
    """Hash of plain data, the same for equal content in any order of its keys."""
    return hashlib.sha256(ENCODE(value).encode()).hexdigest()[:length]
