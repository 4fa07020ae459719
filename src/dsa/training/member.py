"""One option of a cohort: what it learns with, and what it learns by."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dsa.backbones import SiteInputs
from dsa.graph import Need
from dsa.indexers import Indexer, Picking
from dsa.judging.models import PATTERNS
from dsa.ops import IndexFeatures, Scorer, TrueAttention
from dsa.patterns import Choosing
from dsa.precision import Precision
from dsa.spec import Spec
from dsa.training.balance import Balanced
from dsa.training.captured import captured_by_entry, missed
from dsa.training.log import RunLog
from dsa.training.objective import IndexerObjective
from dsa.training.regret import regret_loss
from dsa.training.stages import Group


class Answer(NamedTuple):
    """What an indexer said in one pass.

    Args:
        asked: of the site whose hidden states it reads.
        parts: what each of its parts ranks keys by.
    """

    asked: SiteInputs
    parts: dict[str, IndexFeatures]


Said = dict[tuple[str, int], Answer]
"""What members' indexers said in one pass, by hash of the member and number of the indexer."""
Preferred = dict[tuple[str, int], Tensor]
"""What members' patterns preferred in one pass, likewise."""


@dataclass
class Member:
    """One option of a cohort: its indexers, each of one site of the base or of several that share it.

    Args:
        of: number of each site's indexer.
        patterns: those that choose, one beside each indexer; none where the pattern learns nothing.
        log: its own record, whoever else is trained with it.
        folder: where its record and weights are kept until the cohort is done.
        failed: why its training was given up; it then learns no more, and the others go on.
        preferred: by number of the indexer, how probable each entry of its pattern's library is to each group of heads
            in the latest pass.
    """

    spec: Spec
    need: Need
    indexers: nn.ModuleList
    of: list[int]
    patterns: nn.ModuleList
    precision: Precision
    objective: IndexerObjective
    log: RunLog
    folder: Path
    failed: str | None = None
    preferred: dict[int, Float[Tensor, "group entry"]] = field(default_factory=dict)

    @property
    def learning(self) -> dict[str, nn.ModuleList]:
        """What learns by a loss of its own, by the name of the loss in the member's record."""
        own = [indexer for indexer in self.indexers if isinstance(indexer, Indexer)]
        parts = {name: nn.ModuleList(each.parts()[name] for each in own) for name in own[0].parts()}
        picking = nn.ModuleList(each.picker for each in own if isinstance(each, Picking))
        parts |= {"picker": picking, "pattern": self.patterns}
        return {name: part for name, part in parts.items() if len(part)}

    @property
    def picks(self) -> bool:
        """Whether its indexers pick among others, and learn to."""
        return isinstance(self.indexers[0], Picking)

    def balances(self) -> dict[str, Balanced]:
        """What weighs the losses of sites that share an indexer against each other, by name of the loss."""
        own = [indexer.parts() for indexer in self.indexers if isinstance(indexer, Indexer)]
        taught = {name: [list(parts[name].parameters()) for parts in own] for name in own[0]}
        found = {self.key(name): self.objective.balanced(self.of, parameters) for name, parameters in taught.items()}
        return {name: balance for name, balance in found.items() if balance is not None}

    def averaged(self, row: dict[str, float]) -> dict[str, float]:
        """Where its indexers are made of several, the mean of their losses; as any other's it is `indexer_loss`."""
        losses = [row[f"train/{part}_loss"] for part in self.learning if part.startswith("indexer_")]
        return {"train/indexer_loss": sum(losses) / len(losses)} if losses else {}

    def shares(self) -> dict[str, float]:
        """How probable each pattern was to each group of heads, by the first layer that it decides for."""
        return {
            f"train/pattern_{self.of.index(number):02d}_{group}_{name}": share
            for number, preferred in self.preferred.items()
            for group, shares in enumerate(preferred.tolist())
            for name, share in zip(self.names(number), shares, strict=True)
        }

    def names(self, number: int) -> tuple[str, ...]:
        """Of a pattern's library."""
        pattern = self.patterns[number]
        assert isinstance(pattern, Choosing)
        return pattern.names

    def key(self, part: str) -> str:
        """What a loss and a group of parameters are called among those of the whole cohort."""
        return f"{self.need.hash}/{part}"

    @property
    def groups(self) -> list[Group]:
        lr = self.spec.recipe.warmup_lr
        return [
            Group(self.key(name), list(part.parameters()), lr, "recipe.warmup.indexer_lr")
            for name, part in self.learning.items()
        ]

    def weights(self) -> dict[str, Tensor]:
        """What its artifact holds."""
        patterns = {f"{PATTERNS}{name}": weight for name, weight in self.patterns.state_dict().items()}
        return self.indexers.state_dict() | patterns

    def indexer(self, site: int) -> Indexer:
        """The one of a site."""
        found = self.indexers[self.of[site]]
        assert isinstance(found, Indexer)
        return found

    def answer(self, inputs: SiteInputs, said: Said) -> Answer:
        """What a site's indexer says: where sites share one, what it said at the first of them.

        Args:
            said: in this pass so far.
        """
        key = self.need.hash, self.of[inputs.site.index]
        if key not in said:
            parts = self.indexer(inputs.site.index).parts()
            x, rotary, latent = inputs.hidden, inputs.rotary, inputs.latent
            said_by = {name: part(x, rotary, latent=latent).each[0] for name, part in parts.items()}
            found = {name: self.precision.cast(features) for name, features in said_by.items()}
            said[key] = Answer(inputs, found)
        return said[key]

    def scorer(self, inputs: SiteInputs, said: Said) -> Scorer:
        """What ranks a site's keys: its indexer, or the parts that it picks as it is."""
        indexer, (asked, parts) = self.indexer(inputs.site.index), self.answer(inputs, said)
        if isinstance(indexer, Picking):
            with torch.no_grad():
                return indexer.scorer(indexer(asked.hidden, asked.rotary).mapped(self.precision.cast))
        (only,) = parts.values()
        return indexer.scorer(only)

    def regret(self, inputs: SiteInputs, said: Said, target: TrueAttention) -> Tensor:
        """The loss of the picker among a site's indexers.

        Args:
            target: the attention that they learn.
        """
        indexer = self.indexer(inputs.site.index)
        assert isinstance(indexer, Picking)
        asked, parts = self.answer(inputs, said)
        return regret_loss(indexer, asked.hidden, list(parts.values()), target, self.spec.ops)

    def missed(self, inputs: SiteInputs, said: Said, logits: Preferred, progress: float, dense: Tensor) -> Tensor:
        """The loss of a site's pattern: where sites share a router, of what it prefers at the first of them.

        Args:
            logits: of patterns in this pass so far.
            dense: log-sum-exp of the site's attention logits.
        """
        number = self.of[inputs.site.index]
        pattern = self.patterns[number]
        assert isinstance(pattern, Choosing)
        key = self.need.hash, number
        if key not in logits:
            x = inputs.hidden
            time = torch.arange(x.shape[1], device=x.device).expand(len(x), -1)
            logits[key] = pattern.logits(x, x[:, : pattern.prefix], time, progress)
            self.preferred[number] = logits[key].detach().softmax(-1).mean((0, 2))
        scorer = self.scorer(inputs, said)
        return missed(logits[key], captured_by_entry(pattern, scorer, inputs, dense, self.spec.ops))
