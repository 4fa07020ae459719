"""What goes between modules, ops and backends: what ranks keys, what was selected, and what a backend answers."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dsa.ops.rotary import Rotation
from dsa.ops.zones import Zones

if TYPE_CHECKING:  # they stand on this file
    from dsa.ops.scorers import IndexFeatures, TrueAttention


@runtime_checkable
class Scorer(Protocol):
    """What ranks keys: it gives each query and each selectable unit, a token or a block of tokens, a score."""

    @property
    def unit(self) -> int:
        """Tokens per selectable unit; units begin at multiples of this position."""

    @property
    def groups(self) -> int:
        """Number of groups of heads whose scores differ."""

    @property
    def forced(self) -> Zones:
        """Keys that are kept whatever the pattern, up to the query itself; they do not compete."""

    @property
    def width(self) -> int:
        """How many numbers are held for each query and unit while they are scored."""

    @property
    def shape(self) -> tuple[int, int, int] | None:
        """Batch, queries and units that it can score; None: any."""

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """What the scores are computed from."""

    def scores(
        self, rows: slice, columns: slice, offset: int = 0, device: torch.device | None = None
    ) -> Float[Tensor, "batch group time unit"]:
        """Scores of the queries in `rows` (indices into the queries) against the units in `columns`.

        Args:
            offset: position of the first query.
            device: where scores are wanted that come from no tensor; their batch is 1.
        """

    def of_group(self, group: int) -> "Scorer":
        """The scorer of one group alone."""

    def cost(self, zones: Zones | tuple[Zones, ...], length: int) -> float:
        """Floating-point operations of the scores of one sequence, one multiply-add counted as 2."""


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


class ScoredRows(NamedTuple):
    """What a `trim` rule sees of each query: its kept scores in descending order, never the whole row.

    All is told of tokens. One of a unit of n tokens has the score of its unit less ln n, so that the probability of a
    unit is spread evenly over its tokens. The log-sum-exp and entropy are those of softmax(I) over all tokens that the
    query can see, forced ones included; with units of several tokens forced ones have no score and stay outside.
    """

    scores: Float[Tensor, "batch group time slot"]  # of the scored keys that were kept; unused slots -inf
    forced: Int[Tensor, "batch group time"]
    forced_logsumexp: Float[Tensor, "batch group time"]
    logsumexp: Float[Tensor, "batch group time"]
    entropy: Float[Tensor, "batch group time"]  # nats


Trim = Callable[[ScoredRows], Int[Tensor, "batch group time"]]


class Call(NamedTuple):
    """What a backend is asked to serve; an empty one asks whether it runs here at all.

    Args:
        tensors: what it is to compute with.
        device: where the answer is wanted, if there is no tensor.
        scorer: what ranks keys.
        trims: a rule drops some of the kept keys.
        learner: the features whose loss is wanted.
        dense: that loss is over all keys, not over a selection.
        cap: of the attention logits that are computed or learned, if they have one.
        emphasis: some of what is learned counts more than the rest.
    """

    tensors: tuple[Tensor, ...] = ()
    device: torch.device | None = None
    scorer: Scorer | None = None
    trims: bool = False
    learner: "IndexFeatures | None" = None
    dense: bool = False
    cap: float | None = None
    emphasis: bool = False


@runtime_checkable
class Backend(Protocol):
    """The ops, as `dsa.ops.reference` defines them; a module or an object."""

    @property
    def name(self) -> str:
        """What a configuration calls it."""

    @property
    def selected_only(self) -> bool:
        """Whether it computes the selected pairs alone; else its times say nothing of speed."""

    def multiplies(self, dtype: torch.dtype) -> bool:
        """Whether it selects by numbers of this format as the processor multiplies them (`IndexFeatures.integers`, or
        features that are `held` in it); else in float32."""

    def covers(self, call: Call) -> str | None:
        """None if it serves this call, else why not, in a sentence."""

    def select(
        self,
        scorer: Scorer,
        zones: Zones,
        limit: Int[Tensor, "batch group time"],
        trim: Trim | None = None,
        offset: int = 0,
        first: Int[Tensor, "batch"] | None = None,
        slots: int | None = None,
    ) -> Selection: ...

    def attend(
        self,
        q: Float[Tensor, "batch head time dim"],
        k: Float[Tensor, "batch kv_head key dim"],
        v: Float[Tensor, "batch kv_head key dim"],
        selection: Selection,
        sink: Float[Tensor, "head"] | None = None,
        *,
        scale: float | None = None,
        cap: float | None = None,
    ) -> tuple[Float[Tensor, "batch head time dim"], Float[Tensor, "batch head time"]]: ...

    def attend_with_target(
        self,
        q: Float[Tensor, "batch head time dim"],
        k: Float[Tensor, "batch kv_head key dim"],
        v: Float[Tensor, "batch kv_head key dim"],
        selection: Selection,
        groups: int = 1,
        sink: Float[Tensor, "head"] | None = None,
        *,
        scale: float | None = None,
        cap: float | None = None,
    ) -> "tuple[Float[Tensor, 'batch head time dim'], TrueAttention]": ...

    def dense_logsumexp(
        self,
        q: Float[Tensor, "batch head time dim"],
        k: Float[Tensor, "batch kv_head key dim"],
        sink: Float[Tensor, "head"] | None = None,
        *,
        scale: float | None = None,
        cap: float | None = None,
    ) -> Float[Tensor, "batch head time"]: ...

    def indexer_loss(
        self,
        features: "IndexFeatures",
        target: "TrueAttention | Float[Tensor, 'batch group time key']",
        selection: Selection | None,
    ) -> Float[Tensor, ""]: ...

    def indexer_losses(
        self,
        features: "Sequence[IndexFeatures]",
        target: "TrueAttention | Float[Tensor, 'batch group time key']",
    ) -> list[Float[Tensor, ""]]: ...

    def lightning_features(
        self,
        projected: Float[Tensor, "batch time width"],
        heads: int,
        weight: Float[Tensor, "dim"],
        bias: Float[Tensor, "dim"],
        eps: float,
        rotary: Rotation,
        rotary_dim: int | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]: ...
