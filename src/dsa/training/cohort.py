"""The warm-up of many indexers at once: one pass through one frozen base, a loss for each, none touching another."""

import logging
import math
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dsa import ops
from dsa.artifacts.atomic import replacing, write_json
from dsa.artifacts.digest import digest
from dsa.artifacts.files import METRICS
from dsa.artifacts.store import PLACES, RECORD, Named, Store, read_json
from dsa.backbones import Backbone, Pass, SiteInputs
from dsa.backbones.frozen import held_in
from dsa.backbones.router import attention_of
from dsa.build import build_backbone, build_indexers, build_patterns, numbers_of_indexers, precision_of
from dsa.data import Batch, DataModule
from dsa.graph import Need, objective_of
from dsa.judging.checkpoints import fit_base, save_weights
from dsa.judging.world import first_process, wait_for_all
from dsa.patterns import Choosing
from dsa.spec import Spec
from dsa.training.balance import Balanced
from dsa.training.dashboard import Dashboard
from dsa.training.fit import fit
from dsa.training.log import RunLog
from dsa.training.making import locked, record_of
from dsa.training.member import Member, Preferred, Said
from dsa.training.module import Training
from dsa.training.objective import Emphases
from dsa.training.stages import Group, Stage

logger = logging.getLogger(__name__)
DONE = "done"


class NoneLeft(FloatingPointError):
    """Every member of a cohort has diverged."""


class CohortTraining(Training):
    """The base attends densely and stays as it is; each member learns its attention over every earlier key.

    What a member becomes does not depend on who is trained beside it: its weights, gradients, clipping and rates are
    its own, and the losses are summed. A pattern that chooses learns beside its indexer which of its library captures
    most of the attention, by a loss, a gradient and a clipping of its own: the indexer becomes what it becomes under
    any other pattern. Where sites share an indexer, it learns from each of them: the mean of their
    divergences has the gradient of the divergence from the mean of their attention.
    """

    backbone_learns: ClassVar[bool] = False  # the base has no gradients and no optimiser states, and members are small

    def __init__(self, members: Sequence[Member], *arguments: Any) -> None:
        super().__init__(*arguments)
        self.members = members
        self.indexers = nn.ModuleDict({member.need.hash: member.indexers for member in members})
        self.patterns = nn.ModuleDict({member.need.hash: member.patterns for member in members})
        self.balances.update({name: one for member in members for name, one in member.balances().items()})
        self.strict_loading = False  # checkpoints leave out the base

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = {name: value for name, value in state.items() if not name.startswith("model.")}
        checkpoint["failed"] = {member.need.hash: member.failed for member in self.members}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        for member in self.members:
            member.failed = checkpoint["failed"][member.need.hash]

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        found: dict[str, list[Tensor]] = {group.name: [] for group in self.learning}
        said: Said = {}
        logits: Preferred = {}
        dense = Pass(sparse=False)
        learners = [(own, own[0].objective.emphasis(self.model, batch, dense)) for own in self.by_objective()]

        def watch(inputs: SiteInputs) -> None:
            inputs = inputs._replace(hidden=inputs.hidden.float())  # once for all indexers, which read them so
            with torch.enable_grad():
                for name, loss in self.site_losses(inputs, said, logits, learners).items():
                    found[name].append(loss)

        with torch.no_grad():
            self.model.run(batch.tokens, replace(dense, watch=watch, logits=False))
        return {name: self.mean(name, parts) for name, parts in found.items()}

    def mean(self, name: str, parts: list[Tensor]) -> Tensor:
        """A loss over the sites."""
        if name not in self.balances:
            return torch.stack(parts).mean()
        balance = self.balances[name]
        assert isinstance(balance, Balanced)
        return balance.mean(parts)

    def by_objective(self) -> list[list[Member]]:
        """Members whose indexers learn the same."""
        groups: dict[str, list[Member]] = {}
        for member in self.members:
            groups.setdefault(digest(objective_of(member.spec)), []).append(member)
        return list(groups.values())

    def site_losses(
        self, inputs: SiteInputs, said: Said, logits: Preferred, learners: Sequence[tuple[list[Member], Emphases]]
    ) -> dict[str, Tensor]:
        """Each member's losses at one site; the attention that they learn is computed once for all that learn the same.

        Args:
            learners: members that do, and what counts more for their indexers.
        """
        backend = self.members[0].spec.ops
        target = attention_of(inputs, backend)
        out: dict[str, Tensor] = {}
        for members, emphasis in learners:
            features = {
                member.key(part): one for member in members for part, one in member.answer(inputs, said).parts.items()
            }
            own = target.emphasised(emphasis.get(inputs.site.index))
            losses = ops.indexer_losses(list(features.values()), own, backend=backend)
            out |= dict(zip(features, losses, strict=True))
            out |= {member.key("picker"): member.regret(inputs, said, own) for member in members if member.picks}
        progress = self.global_step / max(self.stage.steps - 1, 1)
        for member in self.members:
            if len(member.patterns):
                out[member.key("pattern")] = member.missed(inputs, said, logits, progress, target.logsumexp)
        return out

    def weight(self, name: str) -> float:
        return next(member.objective.weight for member in self.members if name.startswith(member.need.hash))

    def configure_gradient_clipping(self, optimizer: Optimizer, *_: Any, **__: Any) -> None:
        """Clip each member alone. One that diverged learns no more; where all have, training ends.

        Raises:
            NoneLeft: all have diverged.
        """
        norms = self.clipped()
        losses = [self.row[group.name] for group in self.learning]
        bad = [not (math.isfinite(n) and math.isfinite(loss)) for n, loss in zip(norms, losses, strict=True)]
        bad = [flag > 0 for flag in self.total(torch.tensor(bad, dtype=torch.float64)).tolist()]
        for group, norm, loss, diverged in zip(self.learning, norms, losses, bad, strict=True):
            member, part = self.whose(group)
            if diverged and member.failed is None:
                member.failed = self.diverged(loss if not math.isfinite(loss) else norm, f"{part}_loss", [group])
                logger.warning("%s: %s", member.need.name, member.failed)
        for group in self.learning:
            if self.whose(group)[0].failed is not None:
                for parameter in group.parameters:
                    parameter.grad = torch.zeros_like(parameter)
        self.note_rates(optimizer)
        if all(member.failed is not None for member in self.members):
            raise NoneLeft(self.members[0].failed)

    def whose(self, group: Group) -> tuple[Member, str]:
        """The member that a group of parameters belongs to, and which part of it that is."""
        owner, _, part = group.name.partition("/")
        return next(member for member in self.members if member.need.hash == owner), part

    def record(self, row: dict[str, float]) -> None:
        """Each member's part of the step into its own log, and all of them side by side into the cohort's."""
        speed = {name: value for name, value in row.items() if name.startswith("speed/")}
        together: dict[str, float] = {}
        for member in self.members:
            own: dict[str, float] = {}
            for part in member.learning:
                key = member.key(part)
                own |= {
                    f"train/{part}_loss": row[f"train/{key}"],
                    f"train/grad_norm_{part}s": row[f"train/grad_norm_{key}"],
                    f"train/lr_{part}s": row[f"train/lr_{key}"],
                }
                balances = {name.removesuffix(key): value for name, value in row.items() if name.endswith(f"_{key}")}
                own |= {f"{name}{part}": value for name, value in balances.items() if name.startswith("train/balance_")}
            own |= member.averaged(own) | member.shares()
            together |= {f"{name}/{member.spec.indexer_label}": value for name, value in own.items()}
            member.log.add(self.stage, self.global_step, "train", own | speed)
        self.run_log.add(self.stage, self.global_step, "train", together | speed)


Wish = tuple[Spec, Need]
"""Indexers to be trained: the spec that names them, and their need."""


def make_indexers(
    store: Store, wishes: Sequence[Wish], data: DataModule, dashboard: Dashboard,
    run_log: RunLog | None = None, again: bool = False,
) -> dict[str, str]:  # fmt: skip
    """Train indexers of one base and one draw of rows that are not there, at once where their warm-ups agree in all but
    the rate.

    Args:
        run_log: of the run for which they are trained, if it is one run; it gets the rows of the first.
        again: train them although they are there.

    Returns: the reasons of those that failed, by hash.
    """
    if not again and not left(store, wishes):
        return {}
    failed: dict[str, str] = {}
    lesson = wishes[0][1].lesson
    with locked(store, f"{lesson}-cohort"):
        if first_process():
            publish_trained(store, lesson)
        wait_for_all()
        for missing in by_stage(wishes if again else left(store, wishes)):
            failed |= train_cohort(store, missing, data, dashboard, run_log)
    return failed


def by_stage(wishes: Sequence[Wish]) -> list[list[Wish]]:
    """Those that can be trained in one pass: of equal length, schedule, clipping and optimiser."""
    groups: dict[str, list[Wish]] = {}
    for spec, need in wishes:
        groups.setdefault(need.schedule, []).append((spec, need))
    return list(groups.values())


def left(store: Store, wishes: Sequence[Wish]) -> list[Wish]:
    """Those that nobody has trained yet."""
    return [(spec, need) for spec, need in wishes if store.find(need) is None]


def train_cohort(
    store: Store, wishes: list[Wish], data: DataModule, dashboard: Dashboard, run_log: RunLog | None
) -> dict[str, str]:
    """See `make_indexers`; the lock of the lesson's cohorts is held."""
    spec, first = wishes[0]
    base = first.base
    assert base is not None
    folder = cohort_folder(store, wishes)
    code = digest([need.code for _, need in wishes], 12)
    resumed = store.begin(folder, code, spec.resume) if first_process() else False
    wait_for_all()
    model = build_backbone(spec, data.vocab_size)
    fit_base(model, store.folder(base))
    if spec.dtype == "bf16":
        held_in(torch.bfloat16, model)
    members = [member_of(wish, model, folder, run_log if wish is wishes[0] else None) for wish in wishes]
    if spec.recipe.warmup_steps:
        stage = Stage("warmup", spec.recipe.warmup_steps, spec.recipe.dense_steps)
        groups = [group for member in members for group in member.groups]
        with suppress(NoneLeft), dashboard.started(folder, [stage.name], resumed) as listener:
            log = RunLog(folder / METRICS if first_process() else None, listener)
            module = CohortTraining(
                members, model, data, False, stage, groups, spec.optimizer.make(), spec.recipe,
                spec.trainer.accumulate, log,
            )  # fmt: skip
            fit(spec, module, folder, validate=False)
    if first_process():
        for member in members:
            if member.failed is None:
                save_weights(member.weights(), member.folder)
                write_json(member.folder / RECORD, record_of(member.need, member.spec) | {
                    "name": member.need.name, "hash": member.need.hash, "code": store.named(member.need).code,
                })  # fmt: skip
        if dashboard.place is not None and (folder / METRICS).exists():
            with replacing(dashboard.place / f"{dashboard.name}.csv") as temporary:
                shutil.copyfile(folder / METRICS, temporary)
        (folder / DONE).touch()
        publish_trained(store, first.lesson)
    wait_for_all()
    return {member.need.hash: member.failed for member in members if member.failed is not None}


def member_of(wish: Wish, model: Backbone, cohort: Path, run_log: RunLog | None) -> Member:
    """An indexer as it begins, with its record in the cohort's folder."""
    spec, need = wish
    folder = cohort / need.hash
    if first_process():
        folder.mkdir(exist_ok=True)
    log = RunLog(folder / METRICS if first_process() else None, then=run_log)
    precision = precision_of(spec, training=True)
    indexers = nn.ModuleList(build_indexers(spec, model))
    of = numbers_of_indexers(model.sites, spec.index_every)
    patterns = nn.ModuleList(one for one in build_patterns(spec, model) if isinstance(one, Choosing))
    return Member(spec, need, indexers, of, patterns, precision, spec.objective.make(), log, folder)


def cohort_folder(store: Store, wishes: list[Wish]) -> Path:
    """Where a cohort is trained: the same members go on where they were interrupted."""
    return cohort_place(store) / f"{wishes[0][1].lesson}-{digest(sorted(need.hash for _, need in wishes))}"


def cohort_place(store: Store) -> Path:
    return store.root / PLACES["indexers"] / ".cohorts"


def publish_trained(store: Store, lesson: str) -> None:
    """Publish the members of every cohort of a lesson whose training is over, also if a kill came in between."""
    for cohort in cohort_place(store).glob(f"{lesson}-*"):
        if not (cohort / DONE).exists():
            continue
        for path in sorted(cohort.glob(f"*/{RECORD}")):
            record = read_json(path)
            if record is not None:
                store.publish(path.parent, Named("indexers", record["name"], record["hash"], record["code"]), record)
        shutil.rmtree(cohort)
