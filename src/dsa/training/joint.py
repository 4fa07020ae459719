"""Joint training: backbone and indexers go on together, with attention on the selection."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.random import fork_rng

from dsa.artifacts.files import METRICS
from dsa.artifacts.store import Artifact, Store
from dsa.backbones import Backbone, Pass, Router
from dsa.build import attach_routers, build_backbone, build_indexers
from dsa.data import Batch, DataModule
from dsa.graph import Need
from dsa.judging.calibrate import calibrate
from dsa.judging.checkpoints import fit_base, read_weights, save_weights
from dsa.judging.evaluation import make_trainer
from dsa.judging.models import fit_indexers, fit_patterns
from dsa.judging.world import first_process
from dsa.ops import Picked
from dsa.patterns import Choice
from dsa.recipe import Recipe
from dsa.spec import Spec
from dsa.training.balance import Balanced
from dsa.training.dashboard import Dashboard
from dsa.training.fit import fit
from dsa.training.log import RunLog
from dsa.training.making import made
from dsa.training.module import Training
from dsa.training.objective import IndexerObjective, losses_of
from dsa.training.shard import whole
from dsa.training.stages import Group, Stage


class JointTraining(Training):
    """Attention on the selection (dense where nothing is routed); each loss trains its own group of parameters."""

    def __init__(self, objective: IndexerObjective, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.objective = objective
        own = [router.indexer for router in self.model.routers if isinstance(router, Router)]
        taught = [[] if indexer is None else list(indexer.parameters()) for indexer in own]
        balance = objective.balanced(self.model.router_of, taught) if self.teaches else None
        if balance is not None:
            self.balances["indexer"] = balance

    @property
    def teaches(self) -> bool:
        """Whether indexers learn."""
        return any(group.name == "indexers" for group in self.learning)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        chosen: dict[int, Choice] = {}
        picked: dict[int, Picked] = {}
        taught: dict[int, Mapping[str, Tensor]] = {}
        how = Pass(
            sparse=self.sparse, teach=self.teaches, progress=self.progress, step=self.global_step + 1,
            chose=chosen.__setitem__, picked=picked.__setitem__, taught=taught.setdefault,
        )  # fmt: skip
        if self.teaches:
            with fork_rng([self.device] if self.device.type == "cuda" else []):  # both passes draw the same
                how = replace(how, emphasis=self.objective.emphasis(self.model, batch, how))
        loss, losses = losses_of(self.model, batch, how)
        self.note_choices(chosen, picked)
        for name, balance in self.balances.items():
            assert isinstance(balance, Balanced)
            losses[name] = balance.mean([taught[site.index][name] for site in self.model.sites])
        out = {"loss": loss}
        return out | {f"{name}_loss": loss for name, loss in losses.items()}

    @property
    def progress(self) -> float:
        """Share of the stage that is done."""
        return self.global_step / max(self.stage.steps - 1, 1)

    def note_choices(self, chosen: dict[int, Choice], picked: dict[int, Picked]) -> None:
        """The share of queries that got each pattern, by layer and group of heads; of rows that got each indexer.

        Raises:
            ValueError: rows of several processes pick members of an indexer.
        """
        if picked and self.trainer.world_size > 1:
            raise ValueError(
                "indexer: one that picks among others trains jointly in one process alone, as each would teach other "
                "members; give trainer.devices=1 and trainer.strategy=auto, or judge=swap."
            )
        for layer, picks in picked.items():
            for name, share in picks.shares().items():
                key = f"picked_{layer:02d}_{name}"
                self.row[key] = self.row.get(key, 0.0) + share / self.accumulate
        for layer, choice in chosen.items():
            for group, shares in enumerate(choice.shares()):
                for name, share in shares.items():
                    key = f"pattern_{layer:02d}_{group}_{name}"
                    self.row[key] = self.row.get(key, 0.0) + share / self.accumulate

    def weight(self, name: str) -> float:
        return 1.0 if name == "loss" else self.objective.weight

    def end_step(self, batch_idx: int) -> None:
        if (batch_idx + 1) % self.accumulate == 0:
            for router in self.model.routers:
                assert isinstance(router, Router)
                router.selector.calibrate(self.total)
        super().end_step(batch_idx)


def make_joint(
    store: Store, spec: Spec, need: Need, data: DataModule, dashboard: Dashboard, run_log: RunLog | None = None,
    maps: Path | None = None, again: bool = False,
) -> Artifact:  # fmt: skip
    """The joint training that a spec names, done now unless it is there; with dense attention without a composition.

    Args:
        run_log: of the run for which it is trained; it gets the same rows.
        maps: where pictures of the selection go.
    """

    def make(folder: Path, resumed: bool) -> dict[str, Any]:
        model = start_of(store, spec, need, data)
        recipe, routed = spec.recipe, need.identity["composition"] is not None
        objective = spec.objective.make()
        groups = groups_of(model, recipe, objective)
        calibrate(model, data, make_trainer(spec.trainer, spec.dtype).strategy.root_device)
        before = recipe.dense_steps + (recipe.warmup_steps if routed and spec.uses_indexer else 0)
        stage = Stage("sparse", recipe.sparse_steps, before)
        with dashboard.started(folder, [stage.name], resumed) as listener:
            log = RunLog(folder / METRICS if first_process() else None, listener, run_log)
            module = JointTraining(
                objective, model, data, routed, stage, groups, spec.optimizer.make(), recipe, spec.trainer.accumulate,
                log,
            )  # fmt: skip
            fit(spec, module, folder, maps)
        weights = whole(model)
        if first_process():
            save_weights(weights, folder)
        return {"vocab_size": data.vocab_size}

    return made(store, need, spec, make, again)


def groups_of(model: Backbone, recipe: Recipe, objective: IndexerObjective) -> list[Group]:
    """What learns in joint training: the backbone, indexers that their objective trains here, patterns that learn."""
    named = model.groups()
    groups = [Group("backbone", named["backbone"], recipe.sparse_lr, "recipe.sparse.lr")]
    if named["indexers"] and objective.train_when_sparse:
        groups.append(Group("indexers", named["indexers"], recipe.sparse_indexer_lr, "recipe.sparse.indexer_lr"))
    if named["patterns"]:
        groups.append(Group("patterns", named["patterns"], recipe.sparse_indexer_lr, "recipe.sparse.indexer_lr"))
    return groups


def start_of(store: Store, spec: Spec, need: Need, data: DataModule) -> Backbone:
    """The model as joint training finds it: base and indexers, or from scratch as they begin."""
    model = build_backbone(spec, data.vocab_size)
    if need.base is not None:
        fit_base(model, store.folder(need.base))
    if need.identity["composition"] is None:
        return model
    indexers = build_indexers(spec, model) if spec.uses_indexer else None
    if indexers is not None and need.indexers is not None:
        place = store.folder(need.indexers)
        fit_indexers(indexers, read_weights(place), place)
    attach_routers(spec, model, indexers, trained=True)
    if need.indexers is not None:
        place = store.folder(need.indexers)
        fit_patterns(model, read_weights(place), place)
    return model
