"""One option of a cohort: what it learns with, and what it learns by."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from dsa.backbones import SiteInputs
from dsa.graph import Need
from dsa.indexers import Indexer
from dsa.judging.models import PATTERNS
from dsa.ops import IndexFeatures
from dsa.patterns import Choosing
from dsa.precision import Precision
from dsa.spec import Spec
from dsa.training.captured import captured_by_entry, missed
from dsa.training.log import RunLog
from dsa.training.objective import IndexerObjective
from dsa.training.stages import Group

Said = dict[tuple[str, int], IndexFeatures]
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

    @property
    def learning(self) -> dict[str, nn.ModuleList]:
        """What learns by a loss of its own, by the name of the loss in the member's record."""
        parts = {"indexer": self.indexers, "pattern": self.patterns}
        return {name: part for name, part in parts.items() if len(part)}

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

    def features(self, inputs: SiteInputs, said: Said) -> IndexFeatures:
        """What ranks a site's keys: where sites share an indexer, what it said at the first of them.

        Args:
            said: in this pass so far.
        """
        key = self.need.hash, self.of[inputs.site.index]
        if key not in said:
            said[key] = self.precision.cast(self.indexers[key[1]](inputs.hidden, inputs.rotary))
        return said[key]

    def missed(self, inputs: SiteInputs, said: Said, logits: Preferred, progress: float, dense: Tensor) -> Tensor:
        """The loss of a site's pattern: where sites share a router, of what it prefers at the first of them.

        Args:
            logits: of patterns in this pass so far.
            dense: log-sum-exp of the site's attention logits.
        """
        number = self.of[inputs.site.index]
        pattern, indexer = self.patterns[number], self.indexers[number]
        assert isinstance(pattern, Choosing) and isinstance(indexer, Indexer)
        key = self.need.hash, number
        if key not in logits:
            x = inputs.hidden
            time = torch.arange(x.shape[1], device=x.device).expand(len(x), -1)
            logits[key] = pattern.logits(x, x[:, : pattern.prefix], time, progress)
        scorer = indexer.scorer(self.features(inputs, said))
        return missed(logits[key], captured_by_entry(pattern, scorer, inputs, dense, self.spec.ops))
