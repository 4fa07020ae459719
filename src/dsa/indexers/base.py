"""What every indexer shares: its inputs carry no gradient, and its arithmetic is its own."""

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dsa.checks import above_zero, even
from dsa.ops import IndexFeatures, Mixed, Scorer, Zones, own_dtypes
from dsa.ops.rotary import Rotation


class Keep:
    """What passes over a text leave for the next one, by name. Here nothing: the pass is the first and the last."""

    def all(self, name: str, new: Tensor, axis: int) -> Tensor:
        """What earlier tokens left with the new ones' part behind it, along an axis; all of it is kept in turn."""
        return new

    def last(self, name: str, new: Float[Tensor, "batch time width"], size: int) -> Float[Tensor, "batch wide width"]:
        """What was left with the new tokens behind it; of all these the last `size` are left for the next pass."""
        return new


NOTHING = Keep()


class Work(NamedTuple):
    """What an indexer does for one sequence.

    Args:
        share: of the sequences for which it is done.
        indexer: that scores by itself.
        first: number of the first query that is scored; last: one past the last.
        known: how many first tokens' queries and keys are there already.
    """

    share: float
    indexer: "Indexer"
    first: int
    last: int
    known: int = 0


class Indexer(nn.Module, ABC):
    """Hidden states -> IndexFeatures. A variant writes `score`; `forward` detaches, so that none can forget it.

    Args:
        init: standard deviation of the initial weights.

    Attributes:
        unit: tokens per selectable unit.
        forced: keys that it always keeps, as a window or the unit that is still open; contiguous zones up to the query.
        prefix: of how many of a row's first tokens it reads the hidden states before it decides anything [tokens].
        searched: of how many tokens it reads the scores, if a coarser score first says of which; None: of all.
        latent_width: of the query latent that it reads behind the hidden states; 0: it reads these alone.
        backend: of dsa.ops, which computes its features where an op does.

    A pass that goes on after others reads the tokens of an open unit again (`open_at`): `score` always begins with one.
    """

    unit: int = 1
    forced: Zones = ()
    prefix: int = 0
    searched: int | None = None
    latent_width: int = 0
    backend: str = "auto"

    def __init__(self, init: float = 0.02) -> None:
        super().__init__()
        self.init = above_zero(init, "indexer.init")

    @classmethod
    def given(cls, width: int, kv_heads: int, latent: int) -> dict[str, int]:
        """What its constructor is given beside its settings, of the attention layer that it serves.

        Args:
            width: of the layer's hidden states.
            kv_heads: its key/value heads.
            latent: width of the low-rank latent that its queries are projected from; 0: it has none.
        """
        return {"d_model": width}

    @classmethod
    def stands_for(cls, settings: dict[str, Any], seq_len: int) -> tuple[str, dict[str, Any]] | None:
        """The option that one of this class stands for at a length; None: each for itself.

        Its name, with `~` behind it if a value was changed, and its settings take this one's place before anything is
        named or hashed.

        Args:
            settings: of the option, as plain data.
            seq_len: of the run [tokens].
        """
        return None

    def reading(
        self, hidden: Float[Tensor, "batch time width"], latent: Float[Tensor, "batch time latent"] | None
    ) -> Float[Tensor, "batch time model"]:
        """What it reads of a layer, without gradient: its hidden states, with the latent behind them if it wants it."""
        if not self.latent_width:
            return hidden.detach().float()
        assert latent is not None, "indexer.latent = true is refused where there is none"
        return torch.cat([hidden.detach().float(), latent.detach().float()], -1)

    @abstractmethod
    def score(self, x: Float[Tensor, "batch time model"], rotary: Rotation) -> IndexFeatures:
        """Index features of detached hidden states, as `reading` gives them."""

    def forward(
        self,
        hidden: Float[Tensor, "batch time width"],
        rotary: Rotation,
        keep: Keep = NOTHING,
        latent: Float[Tensor, "batch time latent"] | None = None,
    ) -> IndexFeatures | Mixed:
        """Index features in float32 also under autocast: their format is the precision group's business.

        The language-model loss never trains the indexer, the indexer's loss never trains the backbone.

        Args:
            keep: where the pass may go on after others, what they left.
            latent: that the layer's queries are projected from, if there is one.
        """
        with own_dtypes(hidden):
            return self.features(self.reading(hidden, latent), rotary, keep)

    def features(self, x: Float[Tensor, "batch time model"], rotary: Rotation, keep: Keep) -> IndexFeatures | Mixed:
        """What `score` says of the new tokens, with the keys of earlier ones before theirs."""
        end = rotary.offset + x.shape[1]
        states = keep.last("index_open", x, self.open_at(end))
        again = states.shape[1] - x.shape[1]
        features = self.score(states, rotary.part(rotary.offset - again, end) if again else rotary)
        if again:  # the queries were scored before, and so were the tokens or whole units
            there = again if features.pool == "max" else again // self.unit
            features = from_query(features, again)._replace(keys=features.keys[:, :, there:])
        return features._replace(keys=keep.all("index", features.keys, 2), unit=self.unit, forced=self.forced)

    def open_at(self, position: int) -> int:
        """How many tokens before this one the key of its unit is made of as well; the pass that begins with it scores
        them again, with their hidden states from before."""
        return position % self.unit

    def served_by(self, backend: str) -> "Indexer":
        """Itself, its features and those of indexers in it computed by a backend of dsa.ops."""
        for each in self.modules():
            if isinstance(each, Indexer):
                each.backend = backend
        return self

    def parts(self) -> "dict[str, Indexer]":
        """The indexers of which it is made, by the name of what each learns by; each begins and learns as if alone."""
        return {"indexer": self}

    def work(self, length: int, picked: dict[str, float] | None) -> list[Work]:
        """What is done for a sequence of this length.

        Args:
            picked: the share of sequences that each of its parts got, by name, where it picks one of them.
        """
        return [Work(1.0, self, 0, length)]

    def routing_flops(self, length: int) -> float:
        """Operations of picking one of its parts, for one sequence."""
        return 0.0

    def scorer(self, features: IndexFeatures | Mixed, library: tuple[Zones, ...] = ()) -> Scorer:
        """What ranks the keys: its features as a format holds them, or a search that needs fewer of their scores.

        Args:
            library: zones that the pattern shows, of any head, for a search that looks there alone; none: all.
        """
        return features

    def parameter_counts(self) -> tuple[int, int]:
        """Parameters without and of the norms, which published counts leave out."""
        norm = sum(
            p.numel() for m in self.modules() if isinstance(m, nn.LayerNorm | nn.RMSNorm) for p in m.parameters()
        )
        return sum(p.numel() for p in self.parameters()) - norm, norm

    def projection_flops(self, length: int) -> float:
        """Operations of its linear maps for one sequence, one multiply-add counted as 2; an override says otherwise
        where one is not applied to each token."""
        return 2.0 * length * sum(layer.weight.numel() for layer in self.modules() if isinstance(layer, nn.Linear))


def rotary_dims(rotary_dim: int | None, dim: int) -> int:
    """How many of `dim` dimensions the rotary embedding turns: all, or the first `rotary_dim`."""
    why = "the rotary embedding turns pairs of dimensions"
    if rotary_dim is None:
        return even(dim, "indexer.dim", f"{why}, unless indexer.rotary_dim names a smaller even number of them")
    if even(rotary_dim, "indexer.rotary_dim", why) > dim:
        raise ValueError(f"indexer.rotary_dim = {rotary_dim}: more than indexer.dim = {dim}.")
    return rotary_dim


def from_query(features: IndexFeatures, first: int) -> IndexFeatures:
    """The queries from one of them on, and every key."""
    weights = None if features.weights is None else features.weights[:, :, first:]
    return features._replace(queries=features.queries[:, :, first:], weights=weights)
