"""Where artifacts lie, and how one is made: under a lock, beside its place, then published by one rename."""

import functools
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from filelock import FileLock, Timeout

from dsa.artifacts.atomic import write_json, write_text
from dsa.artifacts.digest import digest
from dsa.checks import folder_name

logger = logging.getLogger(__name__)
SCHEMA = 2
RECORD, WEIGHTS, CODE, PARTIAL = "artifact.json", "weights.ckpt", "code.txt", ".partial"
LAST = "last.ckpt"
"""How far the training of an artifact came, in its partial folder."""
PLACES = {"base": "bases", "indexers": "indexers", "joint": "joint", "judgement": "judgements"}
LOCKS = ".locks"


class Wanted(Protocol):
    """What names an artifact: see dsa.graph.Need."""

    @property
    def kind(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def hash(self) -> str: ...
    @property
    def code(self) -> str: ...


class MadeFrom(Wanted, Protocol):
    """A need that says what it is made from."""

    @property
    def needs(self) -> "tuple[Wanted, ...]": ...


@dataclass(frozen=True)
class Named:
    """The name of an artifact, as its record tells it."""

    kind: str
    name: str
    hash: str
    code: str


class Busy(Exception):
    """Another process makes this very thing now."""


@dataclass(frozen=True)
class Artifact:
    """A finished artifact: its folder, and what was written of it."""

    folder: Path
    record: dict[str, Any]

    @property
    def name(self) -> str:
        return self.folder.name


class Store:
    """The artifacts below an output folder.

    Args:
        root: output_dir.
        stale: whether an artifact made by other code counts: "keep" accepts it, "rerun" makes it again.
    """

    def __init__(self, root: Path, stale: str = "rerun") -> None:
        self.root, self.stale = root, stale

    def folder(self, need: Wanted) -> Path:
        """Where an artifact lies or will lie; another spelling of the same one may have named its folder.

        Raises:
            ValueError: its name or hash, which a file may have told, leads out of there.
        """
        place, name = self.root / PLACES[need.kind], folder_name(need.name, f"name of {need.kind}")
        if (place / name).exists():
            return place / name
        return min(place.glob(f"*-{folder_name(need.hash, f'hash of {need.kind}')}"), default=place / name)

    def find(self, need: Wanted) -> Artifact | None:
        """The finished artifact, made by this code."""
        return self.read(self.folder(need), need.code)

    def read(self, folder: Path, code: str) -> Artifact | None:
        """The finished artifact in a folder; None if there is none, other code made it, or its weights are damaged."""
        record = read_json(folder / RECORD)
        if record is None or not self.accepts(record, code):
            return None
        found = weights_digest(folder)
        if found != record["weights"]:
            tell_damaged(folder / WEIGHTS, found)
            return None
        return Artifact(folder, record)

    def accepts(self, record: dict[str, Any] | None, code: str) -> bool:
        """Whether a record is of today's form, and not of other code where that is to be made again."""
        if record is None or record.get("schema") != SCHEMA:
            return False
        return self.stale == "keep" or bool(record["code"] == code)

    def named(self, need: MadeFrom) -> Named:
        """What names an artifact that is made now, and the code behind it."""
        return Named(need.kind, need.name, need.hash, self.code_behind(need.code, need.needs))

    def code_behind(self, code: str, parts: Sequence[Wanted]) -> str:
        """Fingerprint of the code behind what is made now of these parts: today's; where one of them is of other code
        and kept (stale=keep), one that no code has, so that what stands on it is stale as well."""
        if self.stale != "keep":
            return code
        kept = [self.code_there(part) for part in parts]
        return code if kept == [part.code for part in parts] else digest([code, kept], 12)

    def code_there(self, need: Wanted) -> str | None:
        """Fingerprint of the code behind the artifact that is there; None if there is none."""
        judged = need.kind == "judgement"
        record = read_json(self.judgement_file(need) if judged else self.folder(need) / RECORD)
        return None if record is None else record.get("code")

    def partial(self, need: Wanted) -> Path:
        """Where an artifact is made."""
        folder = self.folder(need)
        return folder.with_name(folder.name + PARTIAL)

    def begin(self, partial: Path, code: str, resume: bool = True) -> bool:
        """Make the folder ready in which something is made; what other code began there is not continued.

        Returns: whether there is something to go on from.
        """
        marker = partial / CODE
        if partial.exists() and (not resume or not marker.exists() or marker.read_text() != code):
            shutil.rmtree(partial)
        resumed = partial.exists()
        partial.mkdir(parents=True, exist_ok=True)
        write_text(marker, code)
        return resumed

    def publish(self, partial: Path, need: Wanted, record: dict[str, Any]) -> Artifact:
        """Give a folder that is complete its name; one that was there before is replaced."""
        folder = self.folder(need)
        named = {"kind": need.kind, "name": folder.name, "hash": need.hash, "code": need.code}
        whole = record | {"schema": SCHEMA, "weights": weights_digest(partial)} | named
        write_json(partial / RECORD, whole)
        old = folder.with_name(f"{folder.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            os.replace(folder, old)
        os.replace(partial, folder)
        shutil.rmtree(old, ignore_errors=True)
        return Artifact(folder, whole)

    @contextmanager
    def alone(self, key: str, wait: bool) -> Iterator[None]:
        """Hold a lock, which a killed process gives back by itself.

        Args:
            wait: until another process has given it back, instead of raising.

        Raises:
            Busy: another process holds it.
        """
        place = self.root / LOCKS
        place.mkdir(parents=True, exist_ok=True)
        lock = FileLock(place / f"{key}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            if not wait:
                raise Busy(key) from None
            logger.info("waiting for another process to finish %s", key)
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def judgement(self, need: Wanted) -> dict[str, Any] | None:
        """A judgement that was made by this code; None if there is none."""
        record = read_json(self.judgement_file(need))
        return record if self.accepts(record, need.code) else None

    def keep_judgement(self, need: Wanted, record: dict[str, Any]) -> dict[str, Any]:
        """Write a judgement, which is as small as it is final."""
        whole = {"schema": SCHEMA, "code": need.code} | record
        path = self.judgement_file(need)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, whole)
        return whole

    def judgement_file(self, need: Wanted) -> Path:
        return self.root / PLACES["judgement"] / f"{folder_name(need.hash, 'hash of judgement')}.json"


def weights_digest(folder: Path) -> str | None:
    """Hash of an artifact's weights as they lie there; None if it has none."""
    path = folder / WEIGHTS
    try:
        now = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return file_digest(path, now.st_size, now.st_mtime_ns)


@functools.lru_cache(maxsize=4096)
def file_digest(path: Path, size: int, changed: int) -> str:
    """Hash of a file, read once as long as its size [bytes] and the time of its last change [ns] stay."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


@functools.cache
def tell_damaged(path: Path, found: str | None) -> None:
    """Say once that weights are not those that were published."""
    state = "is missing" if found is None else "is damaged: it is not what was written"
    logger.warning("%s %s; the artifact counts as not there and is made again.", path, state)


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON file; None if it is not there. One that cannot be read is named, set aside and counts as not there."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(value, dict):
            raise ValueError("it holds no object")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        aside = path.with_name(f"{path.name}.damaged")
        with suppress(FileNotFoundError):  # another process has just done so
            os.replace(path, aside)
        logger.warning("%s cannot be read (%s): it is set aside as %s and made again.", path, error, aside.name)
        return None
    return value
