"""What the classes of a composition answer, held against what they are to answer: once, before anything is trained."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from dsa import ops
from dsa.backbones import Router, Site, SiteInputs
from dsa.backbones.router import attention_of
from dsa.indexers import Indexer
from dsa.ops import IndexFeatures, ScoredRows, Scorer, Zone, Zones, own_dtypes
from dsa.patterns import Pattern
from dsa.precision import Precision
from dsa.selectors import Selector, SelectorContext
from dsa.spec import Part
from dsa.training.errors import category, expected

Dims = Sequence[tuple[str, int | None]]
"""Names of the axes, and their sizes where they are settled."""

WHOLE = (torch.int64, torch.int32)
ZONES = "a tuple of dsa.ops.Zone, or one such tuple for each group of heads"


class VariantFault(ValueError):
    """A class of a composition raises, or answers what nothing can go on with; the message names class and method."""


def check_router(router: Router, inputs: SiteInputs) -> None:
    """Ask indexer, pattern, selector and precision of a site once, and look at what each answers.

    Raises:
        VariantFault: naming class, method, what was expected and what came.
    """
    index: Scorer | None = None
    forced: Zones = ()
    if router.indexer is not None:
        index, forced = checked_scorer(router.indexer, router.precision, inputs), router.indexer.forced
    time = torch.arange(inputs.hidden.shape[1], device=inputs.hidden.device).expand(len(inputs.hidden), -1)
    context = checked_budget(router.pattern, router.selector, inputs.site, time, forced)
    check_selector(router.selector, router.pattern, context, index, inputs, router.backend)


def checked_budget(
    pattern: Pattern, selector: Selector, site: Site, time: Int[Tensor, "batch time"], forced: Zones = ()
) -> SelectorContext:
    """What a pattern shows and keeps, once the selector's budget of it was looked at.

    Args:
        time: positions of queries.
        forced: keys that an indexer keeps.

    Raises:
        VariantFault: of the pattern or the selector.
    """
    dims = (("batch", len(time)), ("group", checked_groups(pattern, site.heads)), ("time", time.shape[1]))
    answers = []
    for method in ("visible", "own_budget"):
        with told(pattern, method):
            answers.append(getattr(pattern, method)(time, forced))
        check_tensor(pattern, method, "", answers[-1], dims, WHOLE)
    visible, own = answers
    context = SelectorContext(time, visible, own, layer=site.index)
    for progress in (0.0, 1.0):
        with told(selector, "limit"):
            limit = selector.limit(context._replace(progress=progress))
        check_tensor(selector, "limit", "", limit, dims, WHOLE)
    return context


def checked_scorer(indexer: Indexer, precision: Precision, inputs: SiteInputs) -> Scorer:
    """What an indexer ranks keys by, once each of its parts and its format were looked at."""
    parts = [checked_cast(precision, checked_features(one, inputs)) for one in indexer.parts().values()]
    x, rotary, latent = inputs.hidden, inputs.rotary, inputs.latent
    with told(indexer, "forward"):
        whole = parts[0] if len(parts) == 1 else indexer(x, rotary, latent=latent).mapped(precision.cast)
    with told(indexer, "scorer"):
        index = indexer.scorer(whole)
    if not isinstance(index, Scorer):
        raise fault(indexer, "scorer", "", kind(index), "what ranks keys, a dsa.ops.Scorer")
    return index


def checked_features(indexer: Indexer, inputs: SiteInputs) -> IndexFeatures:
    """Its features of a site's hidden states."""
    x, heads = inputs.hidden, inputs.site.heads
    batch, time = x.shape[:2]
    with told(indexer, "score"), own_dtypes(x):
        answer = indexer.score(indexer.reading(x, inputs.latent), inputs.rotary)
    if not isinstance(answer, IndexFeatures):
        raise fault(indexer, "score", "", kind(answer), "dsa.ops.IndexFeatures(queries, keys, weights)")
    with told(indexer, "forward"):
        features = indexer(x, inputs.rotary, latent=inputs.latent)
    dims = [("batch", batch), ("group", None), ("time", time), ("head", None), ("dim", None)]
    check_tensor(indexer, "score", "queries", features.queries, dims, (torch.float32,))
    groups, unit = features.groups, features.unit
    if heads % groups:
        raise fault(indexer, "score", "queries", f"{groups} groups", f"a number of groups that divides {heads} heads")
    if isinstance(unit, bool) or not isinstance(unit, int) or unit < 1:
        raise fault(indexer, "unit", "", repr(unit), "a whole number of tokens from 1")
    dims = [("batch", batch), ("keygroup", None), ("entry", None), ("dim", features.queries.shape[4])]
    check_tensor(indexer, "score", "keys", features.keys, dims, (torch.float32,))
    if features.bands:
        check_bands(indexer, features)
    elif groups % features.keys.shape[1]:
        wanted = f"a number of keygroups that divides {groups} groups"
        raise fault(indexer, "score", "keys", f"{features.keys.shape[1]} keygroups", wanted)
    if features.units < time // unit:
        raise fault(
            indexer, "score", "keys", f"{features.units} units",
            f"{time // unit} units of {unit} tokens, for {time} tokens",
        )  # fmt: skip
    if features.weights is not None:
        dims = [("batch", batch), ("group", groups), ("time", time), ("head", features.queries.shape[3])]
        check_tensor(indexer, "score", "weights", features.weights, dims, (torch.float32,))
    return features


def check_bands(indexer: Indexer, features: IndexFeatures) -> None:
    """Refuse bands that leave out heads, or score keys that are not there or hold later tokens."""
    heads, keygroups, bands = features.queries.shape[3], features.keys.shape[1], features.bands
    if sum(band.heads for band in bands) != heads:
        came = f"of {sum(band.heads for band in bands)} heads"
        raise fault(indexer, "score", "bands", came, f"bands of {heads} heads together, as the queries have")
    if features.unit > 1 or any(not 0 <= band.keygroup < keygroups or band.first < band.unit - 1 for band in bands):
        wanted = f"units of one token, keygroups from 0 to {keygroups - 1}, and no band nearer than its unit - 1"
        raise fault(indexer, "score", "bands", str(bands), wanted)


def checked_cast(precision: Precision, features: IndexFeatures) -> IndexFeatures:
    """The features as a format holds them: other values, nothing else."""
    with told(precision, "cast"):
        cast = precision.cast(features)
    if not isinstance(cast, IndexFeatures):
        raise fault(precision, "cast", "", kind(cast), "the dsa.ops.IndexFeatures that it was given, rounded")
    for name, before in (("queries", features.queries), ("keys", features.keys), ("weights", features.weights)):
        after = getattr(cast, name)
        if before is None and after is not None:
            raise fault(precision, "cast", name, kind(after), "None, as the indexer gives none")
        if before is not None:
            dims = list(zip(AXES[name], before.shape, strict=True))
            check_tensor(precision, "cast", name, after, dims, (before.dtype,))
    return cast


AXES = {
    "queries": ("batch", "group", "time", "head", "dim"),
    "keys": ("batch", "keygroup", "entry", "dim"),
    "weights": ("batch", "group", "time", "head"),
}


def checked_groups(pattern: Pattern, heads: int) -> int:
    """For how many groups of heads a pattern has zones."""
    with told(pattern, "zones"):
        zones = pattern.zones()
    if not isinstance(zones, tuple) or not zones:
        raise fault(pattern, "zones", "", kind(zones), ZONES)
    shared = any(isinstance(zone, Zone) for zone in zones)
    for zone in zones if shared else [zone for each in zones for zone in (each if isinstance(each, tuple) else [each])]:
        if not isinstance(zone, Zone):
            raise fault(pattern, "zones", "", f"a tuple that holds {kind(zone)}", ZONES)
    if not shared and not all(zones):
        raise fault(pattern, "zones", "", "a tuple that holds an empty tuple", ZONES)
    groups = 1 if shared else len(zones)
    if heads % groups:
        came, wanted = f"zones for {groups} groups", f"a number of groups that divides {heads} heads"
        if pattern.grouped_by is not None:
            raise VariantFault(f"{pattern.grouped_by}: it gives {came}; give {wanted}.")
        raise fault(pattern, "zones", "", came, wanted)
    return groups


def check_selector(
    selector: Selector, pattern: Pattern, context: SelectorContext, index: Scorer | None, inputs: SiteInputs,
    backend: str,
) -> None:  # fmt: skip
    """What ranks keys, and the rule that sees their scores."""
    with told(selector, "scorer"):
        scorer = selector.scorer(index, lambda: attention_of(inputs, backend), context)
    if not isinstance(scorer, Scorer):
        raise fault(selector, "scorer", "", kind(scorer), "what ranks keys, a dsa.ops.Scorer")
    if not selector.trims:
        return

    def trim(rows: ScoredRows) -> Tensor:
        with told(selector, "trim"):
            kept = selector.trim(rows)
        dims = tuple(zip(("batch", "group", "time"), rows.forced.shape, strict=True))
        check_tensor(selector, "trim", "", kept, dims, WHOLE)
        return kept

    with told(pattern, "zones"):
        ops.select(scorer, pattern.zones(), selector.limit(context), trim, backend=backend)


def check_tensor(
    owner: object, method: str, name: str, value: Any, dims: Dims, dtypes: tuple[torch.dtype, ...]
) -> None:
    """Refuse what is no tensor of these axes and of one of these dtypes."""
    shape = [size for _, size in dims]
    fits = (
        isinstance(value, Tensor)
        and value.dim() == len(shape)
        and all(want in (None, have) for want, have in zip(shape, value.shape, strict=True))
        and value.dtype in dtypes
    )
    if not fits:
        axes = ", ".join(axis if size is None else f"{axis} {size}" for axis, size in dims)
        wanted = f"a tensor [{axes}] of {' or '.join(plain(dtype) for dtype in dtypes)}"
        raise fault(owner, method, name, kind(value), wanted)


def fault(owner: object, method: str, name: str, came: str, wanted: str) -> VariantFault:
    """What is said of an answer that nothing can go on with."""
    return VariantFault(f"{called(owner)}.{method}: {f'{name} is' if name else 'it gives'} {came}; give {wanted}.")


def called(owner: object) -> str:
    """The full name of an object's class."""
    made = owner if isinstance(owner, type) else type(owner)
    return f"{made.__module__}.{made.__qualname__}"


def kind(value: Any) -> str:
    """What came, without its contents."""
    if isinstance(value, Tensor):
        return f"a tensor {list(value.shape)} of {plain(value.dtype)}"
    if value is None:
        return "None"
    name = f"{'' if value or not isinstance(value, tuple | list) else 'empty '}{type(value).__name__}"
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def plain(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


@contextmanager
def told(owner: object, method: str) -> Iterator[None]:
    """Say whose method raised; where the machine lacks memory, that is nobody's fault.

    Raises:
        VariantFault: in place of the error.
    """
    try:
        yield
    except VariantFault:
        raise
    except Exception as error:
        if category(error) == "out_of_memory":
            raise
        raise VariantFault(f"{called(owner)}.{method}: {words_of(error)}") from error


def words_of(error: Exception) -> str:
    """An error in a sentence: this package's own as they are, others with their kind and the line they come from."""
    if isinstance(error, ValueError) and expected(error):
        return str(error)
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    where = "" if last is None else f" ({Path(last.tb_frame.f_code.co_filename).name}, line {last.tb_lineno})"
    first = (str(error).strip().splitlines() or ["no more is said"])[0]
    return f"it raises {type(error).__name__}: {first}{where}."


def check_made(parts: Sequence[tuple[Part, dict[str, Any]]]) -> None:
    """Make each once; what is wrong with a setting is said by the class itself.

    Args:
        parts: options, and what each takes besides its settings.

    Raises:
        VariantFault: a class cannot be made for any other reason.
        ValueError: of a setting.
    """
    for part, arguments in parts:
        try:
            part.make(**arguments)
        except (ValueError, TypeError):
            raise
        except Exception as error:
            if category(error) == "out_of_memory":
                raise
            raise VariantFault(f"{called(part.cls)}.__init__: {words_of(error)}") from error
