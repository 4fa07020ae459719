"""From a Spec to the objects it names."""

from collections.abc import Sequence

from dsa.backbones import Backbone, Router
from dsa.backbones.initial import draw_indexer
from dsa.data import DataModule
from dsa.indexers import Indexer
from dsa.precision import Exact
from dsa.selectors import NearestInstead
from dsa.spec import Spec


def build_data(spec: Spec) -> DataModule:
    """The data of a run, prepared."""
    data: DataModule = spec.data.make()
    return data


def build_backbone(spec: Spec, vocab_size: int) -> Backbone:
    """The backbone with its initial weights and dense attention."""
    backbone: Backbone = spec.model.make(vocab_size=vocab_size, seed=spec.seed)
    return backbone


def build_indexers(spec: Spec, backbone: Backbone) -> list[Indexer]:
    """One indexer for each site, of its width, with the initial weights that `indexer_seed` gives it."""
    out = []
    for site in backbone.sites:
        indexer: Indexer = spec.indexer.make(d_model=site.width)
        draw_indexer(indexer, spec.indexer_seed, site.index)
        out.append(indexer)
    return out


def build_routers(
    spec: Spec,
    backbone: Backbone,
    indexers: Sequence[Indexer] | None,
    trained: bool = False,
    nearest: bool = False,
) -> list[Router]:
    """One router for each site, as the composition says.

    Args:
        indexers: of the sites; None where keys are ranked by something else.
        trained: as training sees it: without the format that is applied after it.
        nearest: the budget goes to the nearest keys.
    """
    pattern = spec.pattern.make()
    precision = Exact() if trained and not spec.in_training else spec.precision.make()
    return [
        Router(
            None if indexers is None else indexers[site.index],
            pattern,
            NearestInstead(spec.selector.make()) if nearest else spec.selector.make(),
            precision,
            site.index,
            spec.ops,
        )
        for site in backbone.sites
    ]


def build_model(spec: Spec, vocab_size: int | None = None) -> Backbone:
    """The whole model that a spec describes, with its initial weights.

    Args:
        vocab_size: of the data; None asks the data.
    """
    backbone = build_backbone(spec, build_data(spec).vocab_size if vocab_size is None else vocab_size)
    if spec.sparse:
        indexers = build_indexers(spec, backbone) if spec.uses_indexer else None
        backbone.attach(build_routers(spec, backbone, indexers))
    return backbone
