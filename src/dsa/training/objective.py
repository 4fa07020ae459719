"""What is minimised: the language model's loss for the backbone, the indexers' loss for the indexers."""

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from dsa.checks import above, flag
from dsa.data import IGNORE


class IndexerObjective:
    """How much the indexers' loss weighs and whether it is taken while the attention is sparse.

    The two losses share no parameter, so the weight only scales the indexers' gradient before clipping.

    Args:
        weight: factor on the indexers' loss.
        train_when_sparse: False leaves the indexers as the warm-up made them.
    """

    def __init__(self, weight: float, train_when_sparse: bool) -> None:
        self.weight = above(weight, 0, "objective.weight")
        self.train_when_sparse = flag(train_when_sparse, "objective.train_when_sparse")


def language_model_loss(
    logits: Float[Tensor, "batch time vocab"], targets: Int[Tensor, "batch time"]
) -> Float[Tensor, ""]:
    """Mean cross-entropy over the positions that ask for something [nats]."""
    return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), ignore_index=IGNORE)
