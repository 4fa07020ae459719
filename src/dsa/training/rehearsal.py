"""The rehearsal: every setting is met, and every class of a composition asked once, before an hour is spent on them."""

from typing import Any

import torch

from dsa.backbones import Backbone, Pass, SiteInputs
from dsa.build import build_indexer, build_model, given_by
from dsa.data import DataModule
from dsa.ops import Rotation
from dsa.selectors import Dense
from dsa.spec import Part, Spec
from dsa.training.room import Made, gaps_in_blocks, never_decides, no_entries, too_coarse
from dsa.training.settings import check_device, check_settings
from dsa.training.sites import first_site
from dsa.training.variants import check_made, check_router, checked_budget, checked_scorer

SHORT = 64  # tokens for which a part of a composition is rehearsed by itself


def rehearse(spec: Spec, data: DataModule) -> None:
    """Meet every setting once, with one row and no training, so that a bad one fails now and not after an hour.

    Raises:
        ValueError: one sentence that names the setting or the class, what it got or gave, and what is allowed.
    """
    check_settings(spec)
    check_device(spec.trainer.accelerator)
    check_made(variants(spec))
    made = Made(spec)
    if (reason := no_entries(made) or gaps_in_blocks(made)) is not None:
        raise ValueError(f"{reason}.")
    if (reason := never_decides(made)) is not None:
        raise ValueError(f"{reason}; give less, or a larger seq_len.")
    if (reason := too_coarse(made)) is not None:
        part, size = (spec.indexer, "indexer.unit") if spec.uses_indexer else (spec.selector, "model.kv_stride")
        raise ValueError(
            f"{part.slot}={part.option}: {reason}. Give a larger selector.k or pattern.budget, or a smaller {size}."
        )
    model = build_model(spec, data.vocab_size)
    if spec.sparse:
        with torch.no_grad():
            model.run(data.batch("rehearsal", 0).tokens[:1], Pass(teach=True, watch=lambda seen: check(model, seen)))
    if spec.compile:
        check_compiles(model)


def check_compiles(model: Backbone) -> None:
    """Have torch compile something of no size where a model's layers are to be compiled.

    Raises:
        ValueError: it cannot here, or the model does not say what its layers are.
    """
    model.compile_layers()
    device = next(model.parameters()).device
    try:
        torch.compile(torch.neg)(torch.zeros(1, device=device))
    except Exception as error:  # whatever a compiler of this machine says
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"compile = true: torch.compile does not work here ({reason}); give compile=false.") from error


def check(model: Backbone, inputs: SiteInputs) -> None:
    """Look at what the router of a site has to go on with, before it is used; one that is shared, at its own site."""
    router = model.router(inputs.site.index)
    if router is not None and router.site == inputs.site.index:
        check_router(router, inputs)


def variants(spec: Spec) -> list[tuple[Part, dict[str, Any]]]:
    """The options of the four groups that a run uses, and what each takes besides its settings."""
    if not spec.sparse:
        return []
    own: list[tuple[Part, dict[str, Any]]] = [(spec.pattern, {}), (spec.selector, {})]
    if not spec.uses_indexer:
        return own
    return [(spec.indexer, given_by(spec, first_site(spec))), (spec.precision, {}), *own]


def rehearse_budget(spec: Spec) -> None:
    """Ask pattern and selector alone: what a plan asks them too, without data, backbone and indexer.

    Raises:
        ValueError: as `rehearse`.
    """
    if not spec.sparse:
        return
    check_made([(spec.pattern, {})])
    pattern, site, time = spec.pattern.make(), first_site(spec), torch.arange(min(spec.seq_len, SHORT))[None]
    checked_budget(pattern, Dense(), site, time)
    if not issubclass(spec.selector.cls, Dense):
        check_made([(spec.selector, {})])
        checked_budget(pattern, spec.selector.make(), site, time)


def rehearse_indexer(spec: Spec) -> None:
    """Ask indexer and number format alone, about made-up hidden states: what is trained beside others stops none.

    Raises:
        ValueError: as `rehearse`.
    """
    draw, site, time = torch.Generator().manual_seed(0), first_site(spec), min(spec.seq_len, SHORT)
    check_made([(spec.indexer, given_by(spec, site)), (spec.precision, {})])
    hidden = torch.randn(1, time, site.width, generator=draw)
    queries = torch.randn(1, site.heads, time, site.dim, generator=draw)
    keys = torch.randn(1, site.kv_heads, time, site.dim, generator=draw)
    with torch.no_grad():
        latent = torch.randn(1, time, site.latent, generator=draw) if site.latent else None
        inputs = SiteInputs(site, hidden, queries, keys, Rotation(time, base=10000.0), latent=latent)
        checked_scorer(build_indexer(spec, site), spec.precision.make(), inputs)
