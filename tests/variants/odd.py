"""Variants of a user's own, each wrong in one way."""

import torch

from dsa.indexers import LightningIndexer
from dsa.ops import Zone
from dsa.patterns import Causal
from dsa.precision import Exact
from dsa.selectors import AdaptiveEntropy, TopK


class FlatQueries(LightningIndexer):
    def score(self, x, rotary):
        features = super().score(x, rotary)
        return features._replace(queries=features.queries[:, 0])


class HalfKeys(LightningIndexer):
    def score(self, x, rotary):
        features = super().score(x, rotary)
        return features._replace(keys=features.keys.half())


class ShortWeights(LightningIndexer):
    def score(self, x, rotary):
        features = super().score(x, rotary)
        return features._replace(weights=features.weights[:, :, 1:])


class ThreeGroups(LightningIndexer):
    def score(self, x, rotary):
        return (
            super()
            .score(x, rotary)
            ._replace(queries=torch.zeros(1, 3, x.shape[1], 1, 8), keys=torch.zeros(1, 3, x.shape[1], 8), weights=None)
        )


class FewKeys(LightningIndexer):
    def score(self, x, rotary):
        features = super().score(x, rotary)
        return features._replace(keys=features.keys[:, :, 1:])


class NoFeatures(LightningIndexer):
    def score(self, x, rotary):
        return self.to_query(x)


class TensorZones(Causal):
    def zones(self):
        return torch.ones(8, 8)


class ListedZones(Causal):
    def zones(self):
        return (Zone(first=0, keep="all"), 3)


class NoZones(Causal):
    def zones(self):
        return ((), (Zone(first=None),))


class FutureZones(Causal):
    def zones(self):
        return (Zone(first=None, last=-1),)


class RaisingZones(Causal):
    def zones(self):
        return (Zone(first=8 // 0),)


class RealBudget(Causal):
    def own_budget(self, time, forced=()):
        return super().own_budget(time, forced) * 0.5


class RaisingMade(Causal):
    def __init__(self, budget):
        raise RuntimeError("no licence")


class FlatLimit(TopK):
    def limit(self, context):
        return super().limit(context)[:, 0]


class LateLimit(TopK):
    def limit(self, context):
        limit = super().limit(context)
        return limit if context.progress == 1 else limit / 2


class NumberLimit(TopK):
    def limit(self, context):
        return 8


class WideTrim(AdaptiveEntropy):
    def trim(self, rows):
        return rows.scores


class NoScorer(TopK):
    def scorer(self, features, attention, context):
        return features.queries


class TensorCast(Exact):
    def cast(self, features):
        return features.queries


class NarrowCast(Exact):
    def cast(self, features):
        return features._replace(keys=features.keys[..., :4])
