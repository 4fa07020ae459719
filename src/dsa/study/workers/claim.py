"""Who works on a job: a file in its folder that is touched while the work goes on.

A heartbeat means the same on every host that sees the folder, which a process number does not.
"""

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from dsa.artifacts.atomic import write_json

CLAIM, ENDED = "running.json", "ended.json"
DEATHS = 2  # processes that may die at a job without getting any further
BEAT, STALE = 5.0, 60.0  # seconds between heartbeats, and without one until the work counts as given up

Further = Callable[[float], bool]
"""Whether a job got any further since a moment: a checkpoint was saved, one of its runs ended."""


def nowhere(since: float) -> bool:
    """Nothing tells that it got any further."""
    return False


@contextmanager
def claimed(folder: Path, further: Further = nowhere, deaths: int = 0) -> Iterator[bool]:
    """Work on a job alone; False if somebody else does.

    A claim without a heartbeat, or of a process that died on this host, is taken over. When the work ends, however
    it ends short of the process dying, the claim becomes ended.json with the time it ended.

    Args:
        deaths: at the same work under another name, before.
    """
    mine = take(folder, further, deaths)
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
        with suppress(OSError):  # a full disk must not hide the job's own error
            write_json(folder / ENDED, mine | {"ended": time.time()})
        if read(folder / CLAIM).get("token") == mine["token"]:
            (folder / CLAIM).unlink(missing_ok=True)


def take(folder: Path, further: Further, deaths: int) -> dict[str, Any] | None:
    """Put our claim into the folder; None if a live one is there."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / CLAIM
    me = this_process() | {
        "token": uuid.uuid4().hex,
        "job_id": os.environ.get("SLURM_JOB_ID"),
        "started": time.time(),
        "deaths": deaths,
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
            me["deaths"] = deaths_after(before, further, requeued)
            put_aside(path)
    return None


def this_process() -> dict[str, Any]:
    """What tells this process from any other, also from one that gets its number later."""
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "process_started": psutil.Process().create_time(),
    }


def deaths_after(before: dict[str, Any], further: Further, requeued: bool = False) -> int:
    """How many processes in a row died at a job without getting any further, those a scheduler stopped apart."""
    if further(before.get("started", 0.0)):
        return 0
    return before.get("deaths", 0) + (not requeued)


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
    """Whether somebody works on this job now.

    A process of this host that is alive does, also while it is stopped or swapped out and its heart does not beat;
    of another host only the heartbeat can be seen.
    """
    path = folder / CLAIM
    try:
        last = path.stat().st_mtime
    except FileNotFoundError:
        return False
    claim = read(path)
    if claim.get("host") == socket.gethostname() and "pid" in claim:
        return not dead_here(claim)
    return abs(clock(folder) - last) < STALE  # one dated in the future is no heartbeat either


def given_up(folder: Path) -> bool:
    """Whether somebody worked on this job and died."""
    return (folder / CLAIM).exists() and not working(folder)


def forget(folder: Path) -> None:
    """Remove the claim of a process that died."""
    if given_up(folder):
        put_aside(folder / CLAIM)


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


def further(outputs: Path, traces: list[str], since: float) -> bool:
    """Whether one of the files that tell of progress was written since a moment."""
    for trace in traces:
        for path in outputs.glob(trace):
            try:
                if path.stat().st_mtime > since:
                    return True
            except OSError:
                continue
    return False
