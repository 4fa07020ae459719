"""From a Spec to the objects it names."""

from bisect import bisect
from collections.abc import Sequence

from dsa.backbones import Backbone, Router, Site
from dsa.backbones.initial import draw_indexer
from dsa.data import DataModule
from dsa.indexers import Indexer
from dsa.patterns import Pattern
from dsa.precision import Exact, Precision
from dsa.selectors import NearestInstead
from dsa.spec import Spec


def build_data(spec: Spec) -> DataModule:
    """The data of a run, prepared."""
    data: DataModule = spec.data.make()
    return data


def build_backbone(spec: Spec, vocab_size: int) -> Backbone:
    """The backbone with its initial weights and dense attention."""
    backbone: Backbone = spec.model.make(vocab_size=vocab_size, seed=spec.seed)
    backbone.save_memory(spec.memory)
    return backbone


def build_indexer(spec: Spec, site: Site) -> Indexer:
    """An indexer for a site, with whatever initial weights."""
    indexer: Indexer = spec.indexer.make(**given_by(spec, site))
    return indexer.served_by(spec.ops)


def given_by(spec: Spec, site: Site) -> dict[str, int]:
    """What the indexer of a site is given beside its settings.

    Raises:
        ValueError: it is to read a latent that the site does not have.
    """
    if spec.indexer.node.get("latent") is True and not site.latent:
        raise ValueError(
            "indexer.latent = true: the model projects its queries from the hidden states, "
            "it has no latent of lower rank between; give indexer.latent=false, or a model that has one (DeepSeek-V3)."
        )
    given: dict[str, int] = spec.indexer.cls.given(site.width, site.kv_heads, site.latent)
    return given


def build_indexers(spec: Spec, backbone: Backbone) -> list[Indexer]:
    """An indexer for each site, or for each that several sites share: of the first one's width, with the initial
    weights that `indexer_seed` gives it there."""
    out = []
    for number in leading(len(backbone.sites), spec.index_every):
        site = backbone.sites[number]
        indexer = build_indexer(spec, site)
        draw_indexer(indexer, spec.indexer_seed, site.index)
        out.append(indexer)
    return out


def build_patterns(spec: Spec, backbone: Backbone) -> list[Pattern]:
    """A pattern for each router, with what it learns as it begins."""
    patterns = []
    for number in leading(len(backbone.sites), routed_together(spec)):
        pattern: Pattern = spec.pattern.make()
        patterns.append(pattern.begun(backbone.sites[number].width))
    return patterns


def routed_together(spec: Spec) -> int | tuple[int, ...]:
    """Which sites in a row share a router: those that share an indexer; controls choose at each site anew."""
    return spec.index_every if spec.uses_indexer else 1


def leading(count: int, every: int | tuple[int, ...]) -> list[int]:
    """Which of so many sites lead: they have an indexer, which the sites up to the next one that leads share.

    Args:
        every: how many sites in a row share an indexer, or the sites that lead.

    Raises:
        ValueError: there are fewer sites.
    """
    has = f"the model has {count} attention layers that can be routed"
    if isinstance(every, int):
        if every > count:
            raise ValueError(f"index_every = {every}: {has}; give a whole number from 1 to {count}.")
        return list(range(0, count, every))
    if every[-1] >= count:
        raise ValueError(f"index_every = {list(every)}: {has}; give numbers from 0 to {count - 1}.")
    return list(every)


def numbers_of_indexers(sites: Sequence[Site], every: int | tuple[int, ...]) -> list[int]:
    """Number of each site's indexer, which reads the site that leads.

    Raises:
        ValueError: as `leading`.
    """
    leaders = leading(len(sites), every)
    return [bisect(leaders, number) - 1 for number in range(len(sites))]


def precision_of(spec: Spec, training: bool) -> Precision:
    """The number format of the index scores; one that takes no part in training is applied after it."""
    return spec.precision.make() if spec.in_training or not training else Exact()


def attach_routers(
    spec: Spec,
    backbone: Backbone,
    indexers: Sequence[Indexer] | None,
    trained: bool = False,
    nearest: bool = False,
    sinks: int = 0,
) -> None:
    """Route the sites of a backbone as the composition says.

    Args:
        indexers: as `build_indexers` gives them; None where keys are ranked by something else.
        trained: as training sees it: without the format that is applied after it.
        nearest: the budget goes to the nearest keys, after so many of a row's first ones (sinks).
    """
    precision = precision_of(spec, trained)
    every = routed_together(spec)
    leaders = [backbone.sites[number] for number in leading(len(backbone.sites), every)]
    routers = [
        Router(
            None if indexers is None else indexers[number],
            pattern,
            NearestInstead(spec.selector.make(), sinks) if nearest else spec.selector.make(),
            precision,
            site.index,
            spec.ops,
        )
        for number, (site, pattern) in enumerate(zip(leaders, build_patterns(spec, backbone), strict=True))
    ]
    backbone.attach(routers, numbers_of_indexers(backbone.sites, every))


def build_model(spec: Spec, vocab_size: int | None = None) -> Backbone:
    """The whole model that a spec describes, with its initial weights.

    Args:
        vocab_size: of the data; None asks the data.
    """
    backbone = build_backbone(spec, build_data(spec).vocab_size if vocab_size is None else vocab_size)
    if spec.sparse:
        indexers = build_indexers(spec, backbone) if spec.uses_indexer else None
        attach_routers(spec, backbone, indexers)
    return backbone
