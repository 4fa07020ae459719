"""Short hashes of plain data."""

import hashlib
import json
from typing import Any


def digest(value: Any, length: int = 8) -> str:
    """Hash of plain data, the same for equal content in any order of its keys."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:length]
