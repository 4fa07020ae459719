"""What a site attends to that reads one compressed entry for a few tokens, and the nearest tokens themselves."""

from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from dsa import ops
from dsa.ops import Selection, TrueAttention


@dataclass(frozen=True)
class Entries:
    """The keys of one pass, which are its values too: raw ones of the nearest tokens, then all entries.

    A query at t sees the tokens from t - window + 1 on, and of the entries whose tokens lie all at or before it those
    that a selection has. Selections are of tokens, as everywhere: an entry is read where all its tokens are selected,
    and tokens whose entry is not there yet are read in the window. On an axis of tokens on which each has the key of
    its entry (`spread`), an attention has the same shares of the entries, each so many times as it has tokens: what
    an indexer of blocks learns and is measured by.

    Args:
        near: keys of the nearest tokens, up to the last of the pass.
        far: an entry for each `stride` tokens from the text's first on.
        offset: position of the pass's first token.
        time: tokens of the pass.
        window: how many of the nearest tokens a query sees, its own among them.
        sink: a logit of each head that takes probability and gives no value.
        backend: of the ops.
    """

    near: Float[Tensor, "batch 1 near dim"]
    far: Float[Tensor, "batch 1 entry dim"]
    offset: int
    time: int
    stride: int
    window: int
    sink: Float[Tensor, "head"] | None = None
    backend: str = "auto"

    @cached_property
    def keys(self) -> Float[Tensor, "batch 1 key dim"]:
        return torch.cat([self.near, self.far], 2)

    @cached_property
    def spread(self) -> Float[Tensor, "batch 1 token dim"]:
        """Each token's entry, for those who learn and measure; nothing where there is none yet."""
        each = self.far.detach().repeat_interleave(self.stride, 2)
        return F.pad(each, (0, 0, 0, self.offset + self.time - each.shape[2]))

    def read(self, selection: Selection | None) -> Selection:
        """The keys of each query: positions among `keys`.

        Args:
            selection: of tokens; None: every entry that is there.
        """
        near = self.near.shape[2]
        time = torch.arange(self.offset, self.offset + self.time, device=self.near.device)
        seen = (time + 1).clamp(max=self.window)
        first = time + 1 - seen - (self.offset + self.time - near)
        if selection is None:  # a row of units for all queries, of which each sees the first ones
            units, counts = torch.arange(self.far.shape[2], device=time.device), (time + 1) // self.stride
            units = units.where(units < counts[:, None], -1)[None, None].int()
        else:
            units, counts = units_of(selection, self.stride)
        far = F.pad(torch.where(units < 0, -1, near + units), (0, 1), value=-1)  # one more, for slots behind all
        slot = torch.arange(min(self.window, self.offset + self.time) + units.shape[3], device=time.device)
        place = slot - seen[:, None]
        entry = far.gather(3, place.clamp(0, units.shape[3]).expand(*far.shape[:3], -1))
        positions = torch.where(place < 0, (first[:, None] + slot).int(), entry)
        shape = len(self.near), far.shape[1], self.time
        return Selection(positions.expand(*shape, -1).contiguous(), (seen + counts).int().expand(shape).contiguous())

    def attend(
        self, q: Float[Tensor, "batch head time dim"], selection: Selection | None
    ) -> tuple[Float[Tensor, "batch head time dim"], Float[Tensor, "batch head time"]]:
        """Attention of the queries, and the log-sum-exp of their logits.

        Args:
            selection: as `read`.
        """
        return ops.attend(q, self.keys, self.keys, self.read(selection), self.sink, backend=self.backend)

    @torch.no_grad()
    def attention(self, q: Float[Tensor, "batch head time dim"]) -> TrueAttention:
        """The dense attention over the entries alone, as share of all that it is over: a key for each."""
        return TrueAttention(q.detach(), self.far.detach(), self.attend(q, None)[1])

    def target(
        self, q: Float[Tensor, "batch head time dim"], logsumexp: Float[Tensor, "batch head time"], groups: int = 1
    ) -> TrueAttention:
        """The attention that an indexer of blocks learns, on the axis of tokens.

        Args:
            logsumexp: of the attention.
            groups: of heads that are learned apart.
        """
        return TrueAttention(q.detach(), self.spread, logsumexp, groups)

    def captured(
        self, q: Float[Tensor, "batch head time dim"], selection: Selection | None, dense: Tensor
    ) -> Float[Tensor, "batch head time"]:
        """Share of each query's dense probability on what it reads, without the sink.

        Args:
            selection: as `read`.
            dense: log-sum-exp of the dense attention.
        """
        return ops.captured(q, self.keys, self.read(selection), dense, backend=self.backend)

    def closed(self, selection: Selection) -> Selection:
        """A selection without the tokens that have no entry yet, which every query reads; counts are what they were."""
        time = torch.arange(self.offset, self.offset + self.time, device=selection.positions.device)
        end = (time + 1) // self.stride * self.stride
        return selection._replace(positions=selection.positions.where(selection.positions < end[:, None], -1))

    def density(self, selection: Selection | None) -> float:
        """Pairs that are attended to over those of dense attention."""
        kept, every = (self.read(one).counts.float().mean() for one in (selection, None))
        return (kept / every).item()


def units_of(
    selection: Selection, unit: int
) -> tuple[Int[Tensor, "batch group time slot"], Int[Tensor, "batch group time"]]:
    """The units of which a selection has all tokens, ascending, unused slots -1, and how many those are; whole units
    come first in it, what follows is of one that is still open."""
    positions = F.pad(selection.positions, (0, -selection.positions.shape[3] % unit), value=-1)
    first, last = positions[..., ::unit], positions[..., unit - 1 :: unit]
    whole = (first >= 0) & (last - first == unit - 1)
    return (last // unit).where(whole, -1).int(), whole.sum(-1)
