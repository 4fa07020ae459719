"""The folder of what is made once and used by every run: tokenised text, pretrained models."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """$XDG_CACHE_HOME/dsa, or ~/.cache/dsa."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dsa"
