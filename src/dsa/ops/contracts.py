"""The tuples that go between modules and ops: what ranks keys, and what was selected."""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor


class IndexFeatures(NamedTuple):
    """An indexer's answer: enough to score any (query, key), and nothing of size time x keys.

    I[t,s] = sum_j weights[t,j] * activation(queries[t,j] . keys[s])  (DeepSeek-V3.2-Exp report, eq. 1)

    Args:
        keys: one per token, or per block of `block` tokens; keygroup divides group, and groups map to keygroups
            contiguously.
        weights: signed and already scaled; None stands for 1.
        pool: "entry": keys are per selectable unit; "max": keys are per token, a block scores its best token.
        block: tokens per selectable unit.
        accumulate: format to which the dot product, each weighted term and the sum over heads are rounded.
    """

    queries: Float[Tensor, "batch group time head dim"]
    keys: Float[Tensor, "batch keygroup entry dim"]
    weights: Float[Tensor, "batch group time head"] | None = None
    activation: Literal["relu", "none"] = "relu"
    pool: Literal["entry", "max"] = "entry"
    block: int = 1
    accumulate: torch.dtype = torch.float32


class Hash(NamedTuple):
    """Scores are pseudo-random whole numbers below 2^24, a function of seed, layer, step, query and key alone."""

    seed: int
    layer: int = 0
    step: int = 0


class Recency(NamedTuple):
    """Scores are the key positions: the nearest keys win."""


class Selection(NamedTuple):
    """For each query the positions of its keys, ascending, unused slots -1, and how many are valid.

    group is 1 (shared by all heads) or a divisor of the heads; heads map to groups contiguously.
    """

    positions: Int[Tensor, "batch group time slot"]
    counts: Int[Tensor, "batch group time"]


class SelectedMass(NamedTuple):
    """Attention probabilities at the slots of a selection, summed over each group's heads.

    Slots beyond a query's count hold anything.
    """

    sums: Float[Tensor, "group batch time slot"]
    selection: Selection


class TrueAttention(NamedTuple):
    """Scores are the attention probabilities themselves, summed over the heads of each group (the oracle).

    Args:
        keys: kv_head divides head, and heads map to kv_heads contiguously.
        logsumexp: per head and query, over the scope in which the probabilities are meant (dense or selected), and
            over a sink if there is one.
        groups: heads map to groups contiguously.
        mass: the scores at a selection's slots, if attending has left them: the indexer loss over this selection
            then need not compute them again.
        scale: of the logits; None = dim^-1/2.
    """

    queries: Float[Tensor, "batch head time dim"]
    keys: Float[Tensor, "batch kv_head key dim"]
    logsumexp: Float[Tensor, "batch head time"]
    groups: int = 1
    mass: SelectedMass | None = None
    scale: float | None = None


Scorer = IndexFeatures | TrueAttention | Hash | Recency


class ScoredRows(NamedTuple):
    """What a `trim` rule sees of each query: its kept scores in descending order, never the whole row.

    The log-sum-exp and entropy are those of softmax(I) over all keys that the query can see, forced ones included.
    """

    scores: Float[Tensor, "batch group time slot"]  # of the scored keys that were kept; unused slots -inf
    forced: Int[Tensor, "batch group time"]
    forced_logsumexp: Float[Tensor, "batch group time"]
    logsumexp: Float[Tensor, "batch group time"]
    entropy: Float[Tensor, "batch group time"]  # nats
