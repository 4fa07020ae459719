"""A storm: sweeps are killed at random moments, with all their workers, until a study is done all the same.

python tests/storm.py --kills 300     # by hand; the suite does a few (study/test_storm.py)

Some rounds start one sweep, some two at once, some a sweep on joblib. A job at which processes died twice before it got
anywhere is given up and said to be; the next sweep tries it again. In the end the results, judgements and weights
are those of a study that nobody disturbed, bit by bit.
"""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from forked import Program, launch

ROOT = Path(__file__).parents[1]
STUDY = [
    "name=storm", "indexer=h1d8,h2d8", "seed=0,1", "judge=both", "seq_len=64", "data=mqar", "data.batch_size=4",
    "data.eval_batch_size=4", "data.eval_batches=2", "model.d_model=32", "model.layers=2", "model.heads=2",
    "model.ff=64", "pattern=causal", "selector.k=8", "steps=90", "callbacks.checkpoint_every=2", "callbacks=quiet",
    "logger=csv", "ops=blocked", "timing=false",
]  # fmt: skip
JOBLIB = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
UNLIKE = ("time", "memory", "provenance", "folder", "warnings")  # of a result: what the clock and the machine decide


def start(outputs: Path, *more: str) -> Program:
    """A sweep in a process group of its own."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    line = [sys.executable, str(ROOT / "sweep.py"), *STUDY, f"output_dir={outputs}", "retry_failed=true", *more]
    return launch(line, environment, session=True, output=outputs.parent / "sweeps.log")


def kill(sweep: Program) -> bool:
    """Kill a sweep with its whole process group; whether it was still running."""
    running = sweep.poll() is None
    if running:
        os.killpg(sweep.pid, signal.SIGKILL)
    sweep.wait()
    return running


def storm(place: Path, kills: int, seed: int = 0, smaller: Sequence[str] = ()) -> dict[str, Any]:
    """Figures of a storm.

    Args:
        place: an empty folder.
        kills: process groups to kill.
        smaller: settings of the study that are others.

    Raises:
        AssertionError: the study did not end, or not with the same numbers.
    """
    draw = random.Random(seed)
    calm, outputs = place / "calm" / "outputs", place / "storm" / "outputs"
    for folder in (calm, outputs):
        folder.parent.mkdir(parents=True)
    launch([sys.executable, "-c", "pass"]).wait()  # what programs are forked from is there: it is no part of the time
    begin = time.monotonic()
    assert start(calm, *smaller).wait() == 0, (calm.parent / "sweeps.log").read_text()
    whole = time.monotonic() - begin
    done = rounds = finished = left = 0
    begin = time.monotonic()
    while done < kills:
        more = draw.choice(([], [], JOBLIB))
        sweeps = [start(outputs, *smaller, *more) for _ in range(draw.choice((1, 1, 2)))]
        time.sleep(draw.uniform(0.1, 1.0) * whole)
        died = sum([kill(sweep) for sweep in sweeps])
        done, rounds = done + died, rounds + 1
        if not died and given_up(outputs):
            left += 1
        elif not died:  # it came to its end: from the start again, somewhere else
            check(calm, outputs)
            finished += 1
            print(f"{done} kills: the study ended {finished} times, each time with the same bits", flush=True)
            outputs = place / f"storm{finished}" / "outputs"
            outputs.parent.mkdir(parents=True)
    status = start(outputs, *smaller).wait()
    assert status == 0, (outputs.parent / "sweeps.log").read_text()[-4000:]
    check(calm, outputs)
    return {
        "kills": done, "rounds": rounds, "ended_between": finished, "given_up_between": left,
        "seconds": round(time.monotonic() - begin),
        "calm_seconds": round(whole), "results": len(contents(calm)),
    }  # fmt: skip


def given_up(outputs: Path) -> bool:
    """Whether a sweep left runs undone because processes died twice at a job before it got anywhere.

    Raises:
        AssertionError: a run failed for another reason.
    """
    results = [json.loads(path.read_text()) for path in outputs.glob("storm/*/result.json")]
    reasons = {result["error"]["category"] for result in results if result["status"] == "failed"}
    assert reasons <= {"killed"}, (reasons, (outputs.parent / "sweeps.log").read_text()[-4000:])
    return bool(reasons)


def check(calm: Path, outputs: Path) -> None:
    """Every result, judgement and weight is what it is where nobody disturbed.

    Raises:
        AssertionError: one is not.
    """
    ours, theirs = contents(outputs), contents(calm)
    assert ours.keys() == theirs.keys(), ours.keys() ^ theirs.keys()
    for name, content in theirs.items():
        assert same(ours[name], content), f"{outputs / name} differs from {calm / name}"
    left = [path for pattern in ("*/*.partial", ".jobs/*/running.json") for path in outputs.glob(pattern)]
    assert not left, left


def contents(outputs: Path) -> dict[str, Any]:
    """What a study left, by its path: results and judgements, weights as tensors."""
    out: dict[str, Any] = {}
    for path in [*outputs.glob("storm/*/result.json"), *outputs.glob("judgements/*.json")]:
        content = json.loads(path.read_text())
        out[str(path.relative_to(outputs))] = {k: v for k, v in content.items() if k not in UNLIKE}
    for kind in ("bases", "indexers", "joint"):
        for path in outputs.glob(f"{kind}/*/weights.ckpt"):
            out[str(path.relative_to(outputs))] = torch.load(path, weights_only=True)
    return out


def same(one: Any, other: Any) -> bool:
    """Equal to the last bit."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    return bool(one == other)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        print(json.dumps(storm(Path(place), given.kills, given.seed)))
