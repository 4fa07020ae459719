"""Whether a condition means anything at a length, and if not, why not."""

from dsa.build import build_indexer, numbers_of_indexers
from dsa.spec import Spec
from dsa.training.fits import too_large, too_long
from dsa.training.rehearsal import rehearse_budget
from dsa.training.room import Made, gaps_in_blocks, never_decides, no_entries, too_coarse, too_wide
from dsa.training.sites import sites_of
from dsa.training.variants import VariantFault


def obstacle(spec: Spec) -> str | None:
    """Why this run cannot say anything at its length; None if it can.

    Raises:
        ValueError: its pattern or selector is impossible in itself.
    """
    made = Made(spec)
    about = (no_entries, too_wide, never_decides, gaps_in_blocks, too_coarse)
    reasons = (reason for ask in about if (reason := ask(made)) is not None)
    return too_long(spec) or next(reasons, None) or too_large(spec)


def check_indexer(spec: Spec, label: str) -> None:
    """Refuse a condition whose indexer cannot be made at all.

    Raises:
        ValueError: naming the condition and its option.
    """
    if not spec.uses_indexer:
        return
    sites = sites_of(spec)
    numbers_of_indexers(sites, spec.index_every)
    try:
        build_indexer(spec, sites[0])
    except (TypeError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise ValueError(f"condition {label}, indexer={spec.indexer.option}: {first}") from error


def fault_of(spec: Spec) -> str | None:
    """What is wrong with the class of a pattern or selector, at any length; None if both answer as they should."""
    try:
        rehearse_budget(spec)
    except VariantFault as error:
        return str(error)
    return None
