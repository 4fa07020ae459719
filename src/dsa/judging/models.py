"""Models put together from artifacts: a base or a joint training, and the routers of a composition."""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from torch import Tensor, nn

from dsa.artifacts.store import Store
from dsa.backbones import Backbone, Router
from dsa.build import attach_routers, build_backbone, build_indexers
from dsa.graph import Need
from dsa.indexers import Indexer
from dsa.judging.checkpoints import fit_base, fit_weights, read_weights
from dsa.spec import Spec

PATTERNS = "patterns."
"""How names of weights begin that an indexers' artifact holds of the patterns trained beside them."""


class Models:
    """Puts models together; indexers that were read once serve every composition on the same base.

    Args:
        vocab_size: of the data.
    """

    def __init__(self, store: Store, vocab_size: int) -> None:
        self.store, self.vocab_size = store, vocab_size
        self.bases: dict[str, Backbone] = {}
        self.read = lru_cache(maxsize=64)(read_weights)

    def of(self, spec: Spec, need: Need) -> Backbone:
        """The model that a judgement looks at; it is handed out again, with other routers, for the same base."""
        on, composition = need.needs[0], need.identity["composition"]
        if on.kind == "base":
            model = self.base(spec, on)
            if composition is None:
                model.attach([])
            elif composition.get("nearest"):
                attach_routers(spec, model, None, nearest=True, sinks=composition.get("sinks", 0))
            else:
                indexers = None if need.indexers is None else self.indexers(spec, model, need.indexers)
                attach_routers(spec, model, indexers)
            if composition is not None and need.indexers is not None:
                place = self.store.folder(need.indexers)
                fit_patterns(model, self.read(place), place)
            return model
        model = build_backbone(spec, self.vocab_size)
        if composition is not None:
            fresh = build_indexers(spec, model) if spec.uses_indexer else None
            attach_routers(spec, model, fresh)
        place = self.store.folder(on)
        fit_weights(model, read_weights(place), place)  # whole models: not kept, they are judged once
        return model

    def base(self, spec: Spec, need: Need) -> Backbone:
        if need.hash not in self.bases:
            self.bases = {}  # the last one alone is kept: judgements of a base follow each other
            model = build_backbone(spec, self.vocab_size)
            fit_base(model, self.store.folder(need))
            self.bases[need.hash] = model
        return self.bases[need.hash]

    def indexers(self, spec: Spec, model: Backbone, need: Need) -> list[Indexer]:
        """The trained indexers of a base."""
        indexers = build_indexers(spec, model)
        place = self.store.folder(need)
        fit_indexers(indexers, self.read(place), place)
        return indexers


def fit_indexers(indexers: list[Indexer], weights: Mapping[str, Tensor], place: Path) -> None:
    """Load what an indexers' artifact holds, in order."""
    for number, indexer in enumerate(indexers):
        own = {name.split(".", 1)[1]: weight for name, weight in weights.items() if name.startswith(f"{number}.")}
        fit_weights(indexer, own, place)


def fit_patterns(model: Backbone, weights: Mapping[str, Tensor], place: Path) -> None:
    """Give the patterns that choose, one at each router, what an indexers' artifact holds of them."""
    for number, router in enumerate(model.routers):
        assert isinstance(router, Router)
        if isinstance(router.pattern, nn.Module):
            prefix = f"{PATTERNS}{number}."
            own = {name.removeprefix(prefix): weight for name, weight in weights.items() if name.startswith(prefix)}
            fit_weights(router.pattern, own, place)
