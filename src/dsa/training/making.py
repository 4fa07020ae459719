"""How an artifact that has to be trained comes to be: found, or made alone, continued after a kill, then published."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dsa.artifacts.atomic import remove_unfinished
from dsa.artifacts.store import LAST, Artifact, Store
from dsa.graph import Need
from dsa.judging.provenance import provenance
from dsa.judging.world import first_process, wait_for_all
from dsa.spec import Spec

logger = logging.getLogger(__name__)

Make = Callable[[Path, bool], dict[str, Any]]
"""Fills a folder, told whether something is there to go on from; returns what else its record says."""


def made(store: Store, need: Need, spec: Spec, make: Make, again: bool = False) -> Artifact:
    """The artifact, made now unless it is there.

    Args:
        again: make it although it is there.
    """
    found = None if again else store.find(need)
    if found is not None:
        return found
    with locked(store, need.hash):
        found = None if again else store.find(need)  # another process may have made it while this one waited
        if found is None:
            fill(store, need, spec, make)
    found = store.find(need)
    assert found is not None
    return found


def fill(store: Store, need: Need, spec: Spec, make: Make) -> None:
    """Make an artifact in the folder beside its place, and publish it."""
    partial = store.partial(need)
    resumed = store.begin(partial, need.code, spec.resume) if first_process() else False
    wait_for_all()
    if first_process():
        remove_unfinished(partial / LAST)
    record = make(partial, resumed)
    wait_for_all()
    if first_process():
        artifact = store.publish(partial, store.named(need), record_of(need, spec) | record)
        (artifact.folder / LAST).unlink(missing_ok=True)  # not before: a kill in between would cost the whole training
    wait_for_all()


def record_of(need: Need, spec: Spec) -> dict[str, Any]:
    """What an artifact says of itself."""
    return {
        "identity": need.identity,
        "needs": [before.name for before in need.needs],
        "config": spec.content,
        "provenance": provenance(need.code),
    }


@contextmanager
def locked(store: Store, key: str) -> Iterator[None]:
    """Hold a lock of the store in the first process; the others follow it."""
    if not first_process():
        yield
        return
    with store.alone(key, wait=True):
        yield
