"""What goes between a backbone, its routers and everything else: sites, passes, and what was decided in one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from jaxtyping import Float, Int
from torch import Tensor

from dsa.backbones.cache import Cache
from dsa.backbones.entries import Entries
from dsa.ops import Emphasis, IndexFeatures, Mixed, Picked, Rotation, Scorer, Selection, Zones, cost
from dsa.patterns import Choice
from dsa.precision import Bits
from dsa.selectors import SelectorContext


@dataclass(frozen=True)
class Site:
    """One attention layer of a backbone.

    Args:
        index: number among the backbone's sites, from 0.
        width: of the hidden states that its indexer sees.
        heads, kv_heads: query heads, and the key/value heads that they share (a divisor).
        dim: width of a head.
        scale: of the attention logits; None = dim^-1/2.
        cap: of the scaled logits: cap * tanh(logits / cap); None = none.
        layer: number among all attention layers of the model; None = index.
        latent: width of the low-rank latent that its queries are projected from; 0: it has none.
        stride: tokens that one of its keys stands for, a compressed entry; 1: its keys are the tokens'.
        window: where it reads entries, how many of the nearest tokens it reads beside them.
    """

    index: int
    width: int
    heads: int
    kv_heads: int
    dim: int
    scale: float | None = None
    cap: float | None = None
    layer: int | None = None
    latent: int = 0
    stride: int = 1
    window: int = 0

    @property
    def number(self) -> int:
        """What a user calls it: the number among all attention layers of the model."""
        return self.index if self.layer is None else self.layer

    def budget(self, limit: Int[Tensor, "batch group time"], time: Int[Tensor, "batch time"]) -> Tensor:
        """The most tokens that a query may keep; where it reads entries whole ones, and on top the last tokens, of
        which there is no entry yet and which it reads anyway.

        Args:
            limit: of the selector.
            time: positions of the queries.
        """
        if self.stride == 1:
            return limit
        return limit // self.stride * self.stride + ((time + 1) % self.stride)[:, None]

    def pairs(self, length: int) -> int:
        """Pairs of a query and a key that it attends to where nothing is left out."""
        if self.stride == 1:
            return cost.causal_pairs(length)
        return cost.entry_pairs(length, self.stride, self.window)


class Size(NamedTuple):
    """How large a backbone is, for those who plan: it is known without its weights.

    Args:
        layers: attention layers.
        width: of the hidden states; ff: of the feed-forward layers.
        heads: of a layer.
        vocab: tokens that it knows; 0 where the data decide.
        weights: all of them, where they were counted; 0 where `parameters` is to estimate them.
        routed: weights of the experts that a token goes through in a layer; 0 without experts.
        context: tokens of the longest row that it reads; None: any.
    """

    layers: int
    width: int
    ff: int
    heads: int
    vocab: int
    weights: int = 0
    routed: int = 0
    context: int | None = None

    @property
    def parameters(self) -> int:
        """As counted, or about; a byte's vocabulary where it is not known."""
        return (
            self.weights
            or self.layers * (4 * self.width**2 + 2 * self.width * self.ff) + (self.vocab or 256) * self.width
        )


class SiteInputs(NamedTuple):
    """What a site attends with, for those who train an indexer on it; queries and keys after rotation.

    Where it reads entries, each token has the key of its own.
    """

    site: Site
    hidden: Float[Tensor, "batch time width"]
    queries: Float[Tensor, "batch head time dim"]
    keys: Float[Tensor, "batch kv_head time dim"]
    rotary: Rotation
    sink: Float[Tensor, "head"] | None = None  # learned logits in the denominator
    latent: Float[Tensor, "batch time latent"] | None = None  # that its queries are projected from, if there is one
    logsumexp: Float[Tensor, "batch head time"] | None = None  # of its dense attention, if it is over other keys too


class Attended(NamedTuple):
    """What a site attended to and what came of it, before any projection; `out` carries the gradients of a loss."""

    site: Site
    values: Float[Tensor, "batch kv_head key dim"]
    out: Float[Tensor, "batch head time dim"]


class Routed(NamedTuple):
    """What a router decided at a site."""

    selection: Selection | None  # None: every earlier key
    features: IndexFeatures | Mixed | None  # before rounding
    cast: IndexFeatures | Mixed | None  # after
    context: SelectorContext
    choice: Choice | None = None  # of a pattern that chooses


class Observation(NamedTuple):
    """What one site did in one forward pass, for those who measure; no gradient.

    Where it read entries, keys and selection are those of tokens, each with the key of its entry.
    """

    layer: int
    queries: Float[Tensor, "batch head time dim"]
    keys: Float[Tensor, "batch kv_head time dim"]
    logsumexp: Float[Tensor, "batch head time"]  # over the selection
    selection: Selection | None  # None: every causal key
    features: IndexFeatures | Mixed | None  # before rounding
    cast: IndexFeatures | Mixed | None  # after
    zones: Zones | tuple[Zones, ...]
    scale: float | None = None  # of the logits; None = dim^-1/2
    cap: float | None = None  # of the scaled logits; None = none
    bits: Bits | None = None  # what the format of the index scores spends; None: it does not say, or there is none
    choice: Choice | None = None  # of a pattern that chooses
    sink: Float[Tensor, "head"] | None = None  # learned logits in the denominator
    entries: Entries | None = None  # that it read
    scorer: Scorer | None = None  # what ranks keys by the features after rounding

    @property
    def picked(self) -> Picked | None:
        """Which of several indexers each row got, where one picks."""
        return self.features.picked if isinstance(self.features, Mixed) else None


@dataclass(frozen=True)
class Pass:
    """How a forward pass attends, and what lives for that pass alone. The default is the finished sparse model.

    Args:
        sparse: attend to the selection; False: to every earlier key.
        teach: compute the indexers' losses over the selection.
        progress: of joint training, 0 to 1.
        step: of training, from 1; 0 in every evaluation.
        observe: called by each sparse site with what it did.
        watch: called by each site with what it attends with, before it does.
        chose: called by each router with the number of its site and what its pattern chose.
        picked: called by each router with the number of its site and what its indexer picked for each row, once a row's
            first tokens are there.
        after: called by each site with what came of it, before that goes anywhere.
        taught: called by each site with its number and its router's losses; once more where it is recomputed.
        emphasis: what counts more in the indexers' losses, by number of the site.
        targets: what each token is asked, where losses are all that is wanted of the logits.
        told: called with each token's loss by a backbone that takes them in chunks of tokens; there are then logits of
            the last token alone.
        logits: wanted of all tokens; False: nobody looks at them, and a backbone may leave out all but the last.
        cache: of the tokens before; the pass begins at position cache.length and adds its own.
        replay: selections that are given, by number of the site whose router would make them; of the whole text.
        routes: what shared routers decided so far in this pass.
    """

    sparse: bool = True
    teach: bool = False
    progress: float = 1.0
    step: int = 0
    observe: Callable[[Observation], None] | None = None
    watch: Callable[[SiteInputs], None] | None = None
    chose: Callable[[int, Choice], None] | None = None
    picked: Callable[[int, Picked], None] | None = None
    after: Callable[[Attended], None] | None = None
    taught: Callable[[int, Mapping[str, Tensor]], object] | None = None
    emphasis: Mapping[int, Emphasis] = field(default_factory=dict, compare=False, repr=False)
    targets: Int[Tensor, "batch time"] | None = field(default=None, compare=False, repr=False)
    told: Callable[[Tensor], object] | None = None
    logits: bool = True
    cache: Cache | None = None
    replay: Mapping[int, Selection] = field(default_factory=dict, compare=False, repr=False)
    routes: dict[int, Routed] = field(default_factory=dict, compare=False, repr=False)

    @property
    def offset(self) -> int:
        """Position of the first token."""
        return 0 if self.cache is None else self.cache.length

    def begun(self) -> "Pass":
        """The same pass with nothing decided yet: a selection never outlives the tokens that it is for."""
        return replace(self, routes={})


class Output(NamedTuple):
    """Logits, and the mean over sites of each loss by name (`indexer` where a pass teaches)."""

    logits: Float[Tensor, "batch time vocab"]
    losses: dict[str, Float[Tensor, ""]]
