"""Speed that may be ranked: the conditions of a length timed alone, in turns, on this machine.

Times taken while runs trained may have had company; whether these had is recorded. Each turn is a process of its own,
so what a process happens to get (its memory's layout, a kernel compiled once) is drawn anew with each. Within a turn
the conditions are visited again and again, one after the other: a host whose speed changes within seconds changes it
for all (once, where memory does not hold them all). Nothing is trained for them: the weights of finished runs are
loaded, and a step at learning rate 0 leaves them as they are.
"""

import functools
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch

from dsa.artifacts.atomic import write_json
from dsa.artifacts.files import TIMING
from dsa.artifacts.names import CONTENDED
from dsa.build import build_data, precision_of
from dsa.data import Batch
from dsa.judging.cost import routers_of
from dsa.judging.evaluation import make_trainer
from dsa.judging.provenance import provenance
from dsa.judging.speed import Contention, inference, milliseconds
from dsa.study.messages import console
from dsa.study.outlook import plural
from dsa.study.plan import SELECTION
from dsa.study.progress import duration
from dsa.study.states import planned, sound
from dsa.study.workers.claim import read
from dsa.training.fits import memory_free
from dsa.training.load import load_run, load_spec
from dsa.training.step import last_step

SCHEMA = 5
ROUNDS = 6  # the least and the greatest of six hold the median with 97 % probability, of five with 94 %
VISITS, VISITING = 9, 4.0  # of a turn at most, and seconds for each condition within which they begin
STEPS, PASSES = 3, 5  # of a visit, at most
STEPPING, PASSING = 0.2, 0.05  # seconds within which they begin
HELD = 16  # bytes of a parameter whose step is timed: itself, its gradient and two moments
Found = TypeVar("Found")


def time_study(folder: Path, again: bool = False, admitted: Sequence[str] = ()) -> None:
    """Write timing.json: by length and condition the medians over turns of a training step and a forward pass [ms].

    Conditions of a length take turns, so that a machine that slows down slows them all; dense attention takes part. A
    length that was timed alone on these very runs is not timed again. Written after each length.

    Args:
        again: time even so.
        admitted: packages of the user's own whose classes the runs' configurations may name.
    """
    plan, known = planned(folder), read(folder / TIMING)
    out = {str(length): known[str(length)] for length in plan["seq_len"] if str(length) in known}
    for length in plan["seq_len"]:
        ready = finished_runs(folder, plan, length)
        ids = sorted(place.name for place in ready.values())
        before = known.get(str(length), {})
        good = before.get("schema") == SCHEMA and before["runs"] == ids and not before["contended"]
        if again or not good:
            console().print(
                f"timing {plural(len(ready), 'condition')} at L {length}, dense attention and controls among them, in "
                f"{ROUNDS} turns; without times: python -m dsa.analysis {folder}",
                markup=False,
            )
            out[str(length)] = {"schema": SCHEMA, "runs": ids} | in_turns(ready, admitted)
            write_json(folder / TIMING, out)


def finished_runs(folder: Path, plan: dict[str, Any], seq_len: int) -> dict[str, Path]:
    """For each condition and control, the first run that finished: after joint training, if it had any."""
    out: dict[str, Path] = {}
    for run in sorted(plan["runs"], key=lambda run: (run["judge"] == "swap", run["phase"] == SELECTION)):
        if run["run_id"] is None or run["seq_len"] != seq_len or run["label"] in out:
            continue
        result = sound(folder / run["run_id"])
        if result is not None and result.status == "finished":
            out[run["label"]] = folder / run["run_id"]
    return {run["label"]: out[run["label"]] for run in plan["runs"] if run["label"] in out}


def in_turns(folders: dict[str, Path], admitted: Sequence[str]) -> dict[str, Any]:
    """Times by label, how many turns each had, where, and whether other processes were busy meanwhile."""
    begin = time.perf_counter()
    rounds = [in_fresh_process(one_round, folders, admitted, torch.get_num_threads())]
    took = time.perf_counter() - begin
    console().print(f"the first took {duration(took)}: about {duration((ROUNDS - 1) * took)} left")
    rounds += [in_fresh_process(one_round, folders, admitted, torch.get_num_threads()) for _ in range(ROUNDS - 1)]
    turns = {label: [taken[label] for taken, _ in rounds] for label in folders}
    medians = {
        label: {name: statistics.median(turn[name] for turn in taken) for name in taken[0]}
        for label, taken in turns.items()
    }
    others = max(busy for _, busy in rounds)
    return {
        "contended": others > CONTENDED,
        "others": others,
        "rounds": ROUNDS,
        "processes": ROUNDS,
        "machine": provenance("")["machine"],
        "times": medians,
        "turns": turns,
    }


def in_fresh_process(call: Callable[..., Found], *arguments: Any) -> Found:
    """What a call returns in a process that has done nothing before."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as fresh:
        return fresh.submit(call, *arguments).result()


def one_round(
    folders: dict[str, Path], admitted: Sequence[str], threads: int
) -> tuple[dict[str, dict[str, float]], float]:
    """One turn of every condition, and the share of the processors that others kept busy meanwhile.

    Where their models do not fit into memory at once, each is loaded, visited once and let go.
    """
    torch.set_num_threads(threads)
    label, *others = folders
    timed = {label: Timed(folders[label], admitted)}
    if not fit_together(timed[label], len(folders)):
        timed.clear()
        company = Contention()
        return {label: alone(Timed(folder, admitted)) for label, folder in folders.items()}, company.others()
    timed |= {other: Timed(folders[other], admitted) for other in others}
    most = 1 if any(one.spec.compile for one in timed.values()) else VISITS  # torch forgets the others' graphs
    company = Contention()
    passes = in_rotation({label: one.forward for label, one in timed.items()}, most)
    steps = in_rotation({label: one.step for label, one in timed.items()}, most)
    return {label: passes[label] | steps[label] for label in timed}, company.others()


def fit_together(one: "Timed", many: int) -> bool:
    """Whether so many models like one, with what their training steps need, take no more than half of the free
    memory."""
    return many * HELD * sum(weight.numel() for weight in one.model.parameters()) <= memory_free(one.spec) / 2


def alone(one: "Timed") -> dict[str, float]:
    """A single visit."""
    return one.forward() | one.step()


def in_rotation(visits: Mapping[str, Callable[[], dict[str, float]]], most: int) -> dict[str, dict[str, float]]:
    """Medians of the times that visits of each condition give, all visited once before any is again.

    Args:
        most: so many of each, or as many as begin in time; one at least.
    """
    found: dict[str, list[dict[str, float]]] = {label: [] for label in visits}
    end = time.perf_counter() + VISITING * len(visits)
    for number in range(most):
        if number and time.perf_counter() > end:
            break
        for label, visit in visits.items():
            found[label].append(visit())
    return {
        label: {name: statistics.median(times[name] for times in each) for name in each[0]}
        for label, each in found.items()
    }


class Timed:
    """A finished run's model with what its training step needs."""

    def __init__(self, folder: Path, admitted: Sequence[str] = ()) -> None:
        self.spec, self.model = load_spec(folder, admitted), load_run(folder, admitted)
        self.data = build_data(self.spec)
        self.batch, self.row = self.data.batch("sparse", 0), next(iter(self.data.eval_loader())).tokens[:1]
        self.sparse = bool(self.model.router_of)
        self.half = self.spec.dtype == "bf16"
        self.device = make_trainer(self.spec.trainer, "fp32").strategy.root_device

    def forward(self) -> dict[str, float]:
        """Forward passes over a row."""
        with self.in_place(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            return inference(self.model, self.row.to(self.device), self.sparse, PASSES, PASSING)

    def step(self) -> dict[str, float]:
        """Steps on a whole batch as in the run's last stage."""
        with self.in_place(), self.as_trained():
            took = milliseconds(self.whole_step, self.device, STEPS, STEPPING)
        return {"step_ms": took}

    @functools.cached_property
    def whole_step(self) -> Callable[[], None]:
        """Compiled as the run trained it; it was judged without."""
        if self.spec.compile:
            self.model.compile_layers()
        batch = Batch(self.batch.tokens.to(self.device), self.batch.targets.to(self.device))
        return last_step(self.spec, self.model, self.data, batch, self.sparse, self.device)

    @contextmanager
    def as_trained(self) -> Iterator[None]:
        """Meanwhile it trains, without the number format that is applied after training."""
        routers, judged = routers_of(self.model), self.spec.precision.make()
        for router in routers:
            router.precision = precision_of(self.spec, training=True)
        self.model.train()
        yield
        self.model.eval()
        for router in routers:
            router.precision = judged

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Meanwhile the model is on its device; then it makes room for the next."""
        self.model.to(self.device)
        yield
        self.model.to("cpu")
