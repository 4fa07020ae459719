"""What an indexer shares that is made of several, of which a picker takes one for each row."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dsa.checks import positive, share
from dsa.indexers.base import Indexer, Keep, Work, from_query
from dsa.ops import IndexFeatures, Mixed, Picked, Stretch, own_dtypes
from dsa.ops.rotary import Rotation


class Picking(Indexer):
    """A row's first tokens decide which of several indexers scores the keys of all its later queries.

    Of the mean z of the hidden states of the first `prefix` tokens the picker predicts each member's regret, how much
    more it loses than the default [nats of KL]: r[m] = u[m] . z + b[m]. It picks argmin over m of r[m] + price * c[m],
    where c[m] are the operations of member m's score of one pair as a share of the default's. The price is the
    smallest from 0 at which the picks of training rows cost at most `compute` on average; `set_price` finds it after
    the warm-up. Queries of the first tokens are scored by the default, the member whose score costs most.

    Args:
        d_model: width of the hidden states.
        members: by name, of which the score of a pair costs ever more; tokens compete, for all heads alike, and nothing
            is forced.
        costs: operations of the score of a pair, of each.
        compute: the mean operations of a score that are to be spent, as a share of the default's.
        prefix: tokens of a row that decide [tokens].
    """

    price: Tensor

    def __init__(
        self, d_model: int, members: Mapping[str, Indexer], costs: Mapping[str, float], compute: float, prefix: int
    ) -> None:
        super().__init__()
        self.names = tuple(members)
        self.prefix, self.compute = positive(prefix, "indexer.prefix"), share(compute, "indexer.compute")
        self.shares = tuple(costs[name] / costs[self.names[-1]] for name in self.names)
        if self.compute < self.shares[0]:
            raise ValueError(
                f"indexer.compute = {compute}: a score of {self.names[0]} alone costs {self.shares[0]:.3f} of one of "
                f"{self.names[-1]}; give that or more, or a smaller member."
            )
        self.members = nn.ModuleDict(members)
        self.picker = nn.Linear(d_model, len(self.names))
        for parameter in self.picker.parameters():
            nn.init.zeros_(parameter)
        self.register_buffer("price", torch.zeros(()))

    @property
    def default(self) -> Indexer:
        return self.member(len(self.names) - 1)

    def member(self, number: int) -> Indexer:
        found = self.members[self.names[number]]
        assert isinstance(found, Indexer)
        return found

    def parts(self) -> dict[str, Indexer]:
        return {f"indexer_{name}": self.member(number) for number, name in enumerate(self.names)}

    def score(self, x: Float[Tensor, "batch time model"], rotary: Rotation) -> IndexFeatures:
        """Of the default, whatever was picked."""
        return self.default.score(x, rotary)

    def features(self, x: Float[Tensor, "batch time model"], rotary: Rotation, keep: Keep) -> Mixed:
        """Each row by the member that its first tokens picked; these themselves by the default.

        Where a pass goes on after others the keys of the first tokens are made anew, of their hidden states.
        """
        batch, time = x.shape[:2]
        start, end = rotary.offset, rotary.offset + time
        early = max(min(self.prefix, end) - start, 0)
        first = keep.all("index_prefix", x[:, :early], 1)
        opening = self.default.score(first, rotary.part(0, first.shape[1]))
        stretches = [Stretch(from_query(opening, start), torch.arange(batch, device=x.device), 0, early)]
        picked = self.pick(first) if end >= self.prefix else None
        if picked is not None and end > self.prefix:
            late, turned = x[:, early:], rotary.part(start + early, end)
            for number, name in enumerate(self.names):
                rows = (picked.entry == number).nonzero()[:, 0]
                if not len(rows):
                    continue
                own = self.member(number)
                features = own.score(late[rows], turned)
                known = opening.keys[rows]
                if own is not self.default:
                    known = own.score(first[rows], rotary.part(0, self.prefix)).keys
                keys = torch.cat([known, keep.all(f"index_{name}", features.keys, 2)], 2)
                stretches.append(Stretch(features._replace(keys=keys), rows, early, time))
        return Mixed(tuple(one for one in stretches if one.first < one.last), batch, time, start, picked)

    def pick(self, first: Float[Tensor, "batch prefix model"]) -> Picked:
        """Which member each row gets; of equals the one that costs least."""
        regret = self.regret(first).detach()
        cost = self.price * regret.new_tensor(self.shares)
        return Picked((regret + cost).argmin(-1), regret, self.names)

    def regret(self, first: Float[Tensor, "batch prefix model"]) -> Float[Tensor, "batch member"]:
        """How much more than the default each member is expected to lose [nats], by hidden states without gradient."""
        with own_dtypes(first):
            return self.picker(first.detach().float().mean(1))

    @torch.no_grad()
    def set_price(self, regret: Float[Tensor, "row member"]) -> None:
        """The smallest price from 0 at which these rows' picks cost at most `compute` on average.

        Args:
            regret: as the picker predicts it for training rows.
        """
        wanted, shares = regret.double(), regret.new_tensor(self.shares).double()
        gap = min(b - a for a, b in zip(self.shares, self.shares[1:], strict=False))
        low, high = 0.0, float(wanted.max() - wanted.min()) / gap + 1.0  # at `high` all pick the cheapest
        if self.spent(wanted, shares, low) <= self.compute:
            high = low
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (low, middle) if self.spent(wanted, shares, middle) <= self.compute else (middle, high)
        self.price.fill_(high)

    @staticmethod
    def spent(regret: Tensor, shares: Tensor, price: float) -> float:
        """Mean cost of what is picked at a price, as a share of the default's."""
        return float(shares[(regret + price * shares).argmin(-1)].mean())

    def work(self, length: int, picked: dict[str, float] | None) -> list[Work]:
        """The default in the first tokens; then of each member as much as the share of rows that picked it. A member's
        projections run over the whole row, its scores from the first query after the prefix."""
        if picked is None or length <= self.prefix:
            return [Work(1.0, self.default, 0, length)]
        out = [Work(1.0, self.default, 0, self.prefix)]
        for number, name in enumerate(self.names):
            own = self.member(number)
            out.append(Work(picked[name], own, self.prefix, length, known=self.prefix if own is self.default else 0))
        return out

    def routing_flops(self, length: int) -> float:
        """A mean and a linear map."""
        return self.picker.in_features * (self.prefix + 2.0 * len(self.names)) if length >= self.prefix else 0.0
