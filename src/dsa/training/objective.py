"""What is minimised: the language model's loss for the backbone, the indexers' loss for the indexers."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from dsa.backbones import Attended, Backbone, Pass
from dsa.backbones.memory import token_losses
from dsa.checks import above, flag, one_of
from dsa.data import IGNORE, Batch
from dsa.ops import Emphasis
from dsa.training.balance import BALANCES, Balanced

Emphases = Mapping[int, Emphasis]
"""What counts more in the indexers' losses, by number of the site."""


class IndexerObjective:
    """How much the indexers' loss weighs and whether it is taken while the attention is sparse.

    The two losses share no parameter, so the weight only scales the indexers' gradient before clipping. The losses of
    layers that share an indexer do, and may be balanced.

    Args:
        weight: factor on the indexers' loss.
        train_when_sparse: False leaves the indexers as the warm-up made them.
        balance: of layers that share an indexer: fixed, each counts alike; gradnorm or uncertainty.

    Attributes:
        whole: it compares the rows of a batch, which must not be taken in parts.
    """

    whole: ClassVar[bool] = False

    def __init__(self, weight: float, train_when_sparse: bool, balance: str = "fixed") -> None:
        self.weight = above(weight, 0, "objective.weight")
        self.train_when_sparse = flag(train_when_sparse, "objective.train_when_sparse")
        self.balance = BALANCES.get(one_of(balance, ("fixed", *BALANCES), "objective.balance"))

    def balanced(self, of: Sequence[int], parameters: Sequence[list[nn.Parameter]]) -> Balanced | None:
        """What weighs the losses of layers against each other; None: each counts alike.

        Args:
            of: number of each layer's indexer.
            parameters: of each indexer, by its number.
        """
        return None if self.balance is None else Balanced(self.balance, of, parameters)

    @property
    def emphasises(self) -> bool:
        """Whether some of the attention counts more than the rest."""
        return type(self).emphasis is not IndexerObjective.emphasis

    def emphasis(self, model: Backbone, batch: Batch, how: Pass) -> Emphases:
        """What of the attention counts more than the rest, found by a pass of its own through the model.

        Args:
            how: the pass in which the indexers are about to learn.
        """
        return {}


class AskedKL(IndexerObjective):
    """Each query's divergence counts as much as the language-model loss of its token: what is asked and hard.

    loss = sum_t l[t] KL(p[t] || softmax(I[t])) / sum_t l[t], over the queries t of a batch; l[t] is the cross-entropy
    at t, 0 where nothing is asked. It costs one forward pass more.
    """

    whole = True

    @torch.no_grad()
    def emphasis(self, model: Backbone, batch: Batch, how: Pass) -> Emphases:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            raise ValueError(
                "objective: asked_kl compares the queries of a whole batch, and several processes have a part each; "
                "give trainer.devices=1 and trainer.strategy=auto, or objective=kl."
            )
        told: list[Tensor] = []
        how = replace(how, teach=False, watch=None, logits=True, targets=batch.targets, told=told.append)
        logits = model.run(batch.tokens, how).logits
        rows = Emphasis(rows=told[0] if told else token_losses(logits, batch.targets))
        return {site.index: rows for site in model.sites}


class GradientKL(IndexerObjective):
    """A key counts as much as the language-model loss depends on the attention that it gets.

    The target of query t is p'[t,s] = sum_h a[h,t,s] |g[h,t,s]|, normalised over s, where a is head h's attention and
    g = dL/da the gradient of the batch's language-model loss by it. The attention gives out o[h,t] = sum_s a[h,t,s]
    v[h,s], so g[h,t,s] = dL/do[h,t] . v[h,s]: one gradient for each head and query says those of all keys, and nothing
    of size time x keys is held. It costs a forward and a backward pass more, and the target twice the products. A query
    on which no loss depends teaches nothing.
    """

    @torch.enable_grad()
    def emphasis(self, model: Backbone, batch: Batch, how: Pass) -> Emphases:
        seen: dict[int, Attended] = {}

        def keep(site: Attended) -> None:
            if not site.out.requires_grad:  # nothing before it learns: the gradient ends here
                site.out.requires_grad_()
            seen.setdefault(site.site.index, site)  # once, also where the pass is recomputed

        loss, _ = losses_of(model, batch, replace(how, teach=False, watch=None, after=keep, logits=True))
        outs = [seen[site.index].out for site in model.sites if site.index in seen]
        upstream = torch.autograd.grad(loss, outs, allow_unused=True) if outs else ()
        if len(outs) < len(model.sites) or any(x is None for x in upstream):
            raise ValueError(
                f"objective: gradient_kl needs the gradient at each attention layer, and {type(model).__name__} gives "
                "it out at some alone; let it attend by dsa.backbones.attention.attend, or give objective=kl."
            )
        return {
            site.index: Emphasis(upstream=own, values=seen[site.index].values.detach())
            for site, own in zip(model.sites, upstream, strict=True)
        }


def language_model_loss(
    logits: Float[Tensor, "batch time vocab"], targets: Int[Tensor, "batch time"]
) -> Float[Tensor, ""]:
    """Mean cross-entropy over the positions that ask for something [nats]."""
    return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), ignore_index=IGNORE)


def losses_of(model: Backbone, batch: Batch, how: Pass) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
    """The language-model loss of a pass [nats], in chunks where the model takes them, and its other losses."""
    told: list[Tensor] = []
    logits, losses = model.run(batch.tokens, replace(how, targets=batch.targets, told=told.append))
    if not told:
        return language_model_loss(logits, batch.targets), losses
    return told[0].sum() / (batch.targets != IGNORE).sum(), losses
