"""What a lightning indexer makes of its projection: the entry, which checks shapes and asks the backends."""

from jaxtyping import Float
from torch import Tensor

from dsa.ops.contracts import Call
from dsa.ops.dispatch import own_dtypes, serving
from dsa.ops.opaque import opaque
from dsa.ops.rotary import Rotation


@opaque
def lightning_features(
    projected: Float[Tensor, "batch time width"],
    heads: int,
    weight: Float[Tensor, "dim"],
    bias: Float[Tensor, "dim"],
    eps: float,
    rotary: Rotation,
    rotary_dim: int | None = None,
    *,
    backend: str = "auto",
) -> tuple[
    Float[Tensor, "batch 1 time head dim"], Float[Tensor, "batch 1 time dim"], Float[Tensor, "batch 1 time rest"]
]:
    """Queries, keys and the rest of an indexer's projection: see `dsa.ops.features`.

    Raises:
        ValueError: shapes that do not fit each other, or dims that do not turn in pairs.
    """
    time, dim = projected.shape[1], len(weight)
    turned = dim if rotary_dim is None else rotary_dim
    if projected.shape[2] < (heads + 1) * dim or len(rotary.position) != time:
        raise ValueError(
            f"lightning_features: projected has shape {tuple(projected.shape)}; {heads} heads and a key of {dim} dims "
            f"need a width of at least {(heads + 1) * dim}, and {len(rotary.position)} positions as many tokens."
        )
    if turned % 2 or not 0 <= turned <= dim:
        raise ValueError(f"lightning_features: rotary_dim = {turned}: give an even number from 0 to the {dim} dims.")
    with own_dtypes(projected):
        serves = serving(backend, Call((projected,)))
        return serves.lightning_features(projected, heads, weight, bias, eps, rotary, rotary_dim)
