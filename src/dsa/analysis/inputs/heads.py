"""How many heads a condition's indexer has."""

import functools

from omegaconf import OmegaConf

from dsa.analysis.inputs.meta import Meta
from dsa.config import config_dir


def heads_of(meta: Meta, label: str) -> int | None:
    """As the plan says, or the shipped option that it names; None if neither does."""
    settings = meta.common | meta.conditions[label]
    found = settings.get("indexer.heads", shipped().get(str(settings.get("indexer"))))
    return int(found) if isinstance(found, int | float) else None


@functools.cache
def shipped() -> dict[str, int | None]:
    """Heads by indexer option."""
    files = (config_dir() / "indexer").glob("*.yaml")
    return {path.stem: OmegaConf.select(OmegaConf.load(path), "heads") for path in files}
