"""Who works on a run: a file in its folder that is touched while the work goes on.

A heartbeat means the same on every host that sees the folder, which a process number does not.
"""

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from dsa.atomic import write_json

CLAIM, JOB = "running.json", "job.json"
DEATHS = 2  # processes that may die at a run without getting any further
BEAT, STALE = 5.0, 60.0  # seconds between heartbeats, and without one until the work counts as given up


@contextmanager
def claimed(folder: Path) -> Iterator[bool]:
    """Work on a run folder alone; False if somebody else does.

    A claim without a heartbeat, or of a process that died on this host, is taken over. When the work ends, however
    it ends short of the process dying, the claim becomes job.json with the time it ended.
    """
    mine = take(folder)
    if mine is None:
        yield False
        return
    ended = threading.Event()
    beating = threading.Thread(target=beat, args=(folder / CLAIM, ended), daemon=True)
    beating.start()
    try:
        yield True
    finally:
        ended.set()
        beating.join()
        with suppress(OSError):  # a full disk must not hide the run's own error
            write_json(folder / JOB, mine | {"ended": time.time()})
        (folder / CLAIM).unlink(missing_ok=True)


def take(folder: Path) -> dict[str, Any] | None:
    """Put our claim into the folder; None if a live one is there."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / CLAIM
    me = this_process() | {
        "token": uuid.uuid4().hex,
        "job_id": os.environ.get("SLURM_JOB_ID"),
        "started": time.time(),
        "deaths": 0,
    }
    for _ in range(2):
        try:
            with path.open("x") as file:
                json.dump(me, file)
            return me
        except FileExistsError:
            before = read(path)
            requeued = me["job_id"] is not None and before.get("job_id") == me["job_id"]
            if working(folder) and not requeued:
                return None
            me["deaths"] = deaths_after(before, folder, requeued)
            put_aside(path)
    return None


def this_process() -> dict[str, Any]:
    """What tells this process from any other, also from one that gets its number later."""
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "process_started": psutil.Process().create_time(),
    }


def deaths_after(before: dict[str, Any], folder: Path, requeued: bool) -> int:
    """How many processes in a row died at a run without leaving a checkpoint, those that a scheduler stopped apart."""
    saved = [path.stat().st_mtime for path in (folder / "checkpoints").rglob("*")]
    further = max(saved, default=0.0) > before.get("started", 0.0)
    return 0 if further else before.get("deaths", 0) + (not requeued)


def put_aside(path: Path) -> None:
    """Remove a stale claim; of several who try, one succeeds, and a claim renewed meanwhile stays."""
    before = read(path)
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        os.rename(path, aside)
    except FileNotFoundError:
        return
    if read(aside).get("token") != before.get("token"):
        with suppress(FileExistsError):
            os.link(aside, path)
    aside.unlink()


def working(folder: Path) -> bool:
    """Whether somebody works on this run now."""
    path = folder / CLAIM
    try:
        last = path.stat().st_mtime
    except FileNotFoundError:
        return False
    return not dead_here(read(path)) and clock(folder) - last < STALE


def given_up(folder: Path) -> bool:
    """Whether somebody worked on this run and died."""
    return (folder / CLAIM).exists() and not working(folder)


def dead_here(claim: dict[str, Any]) -> bool:
    """Whether the claim is of this host and its process is gone: no need to wait for its heartbeat to fail."""
    if claim.get("host") != socket.gethostname() or "pid" not in claim:
        return False
    try:
        process = psutil.Process(claim["pid"])
        return process.status() == psutil.STATUS_ZOMBIE or process.create_time() != claim["process_started"]
    except psutil.NoSuchProcess:
        return True


def clock(folder: Path) -> float:
    """The time by the clock that dates the folder's files, which need not be this host's."""
    probe = folder / f".clock.{uuid.uuid4().hex}"
    try:
        probe.touch()
        return probe.stat().st_mtime
    except OSError:
        return time.time()
    finally:
        with suppress(OSError):
            probe.unlink()


def beat(path: Path, ended: threading.Event) -> None:
    """Touch the claim until the work has ended."""
    while not ended.wait(BEAT):
        with suppress(OSError):
            os.utime(path)


def read(path: Path) -> dict[str, Any]:
    """A small JSON file; empty if it is gone or half written."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
