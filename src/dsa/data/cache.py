"""Tokenised text on disk, under the key of what it was made from: whole or not there."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from filelock import FileLock

from dsa.artifacts.atomic import remove_unfinished, replacing, write_json
from dsa.data.hashing import digest_bytes

log = logging.getLogger("dsa.data")
UNWRITABLE = "cache_dir = %s cannot be written (%s): the text is tokenised at each start."


class Tokens(NamedTuple):
    """Both parts of a tokenised text.

    Args:
        train, validation: the smallest unsigned integers that hold the vocabulary; memory maps once cached.
        tokenizer: the tokeniser's state.
        counts: sizes of the parts [tokens, documents, bytes of UTF-8].
        content: hash of both parts' tokens.
    """

    train: np.ndarray
    validation: np.ndarray
    tokenizer: str
    counts: dict[str, int]
    content: str

    @property
    def largest(self) -> int:
        """The largest token of both parts; -1 where there is none."""
        return max((int(part.max()) for part in (self.train, self.validation) if len(part)), default=-1)


def content_hash(train: np.ndarray, validation: np.ndarray) -> str:
    """Hash of both parts' tokens."""
    return digest_bytes(part.view(np.uint8).data for part in (train, validation))


def cached(folder: Path, key: str, build: Callable[[], Tokens]) -> Tokens:
    """The tokens under `key`, built where they are missing or damaged.

    Processes that start together build once: the others wait at a lock, which the system frees should its holder
    be killed. The tokens are published by rename before the sidecar that vouches for them by hash, so that a
    reader needs no lock and never sees a half. Where the folder cannot be written, a warning says so and the
    text is tokenised at each start.
    """
    data, sidecar = folder / f"{key}.npy", folder / f"{key}.json"
    if (tokens := _read(data, sidecar)) is not None:
        return tokens
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / f"{key}.lock").acquire()
    except OSError as error:
        log.warning(UNWRITABLE, folder, error)
        return build()
    with lock:
        if (tokens := _read(data, sidecar)) is not None:
            return tokens
        built = build()
        try:
            _write(built, data, sidecar)
        except OSError as error:
            log.warning(UNWRITABLE, folder, error)
        return built


def _write(tokens: Tokens, data: Path, sidecar: Path) -> None:
    note = {"train_tokens": len(tokens.train), **tokens._asdict()}
    del note["train"], note["validation"]
    for target in (data, sidecar):
        remove_unfinished(target)
    with replacing(data) as temporary, temporary.open("wb") as file:
        np.save(file, np.concatenate([tokens.train, tokens.validation]))
    write_json(sidecar, note)


def _read(data: Path, sidecar: Path) -> Tokens | None:
    """None where either file is missing, cut short or not what the sidecar vouches for."""
    try:
        note: dict[str, Any] = json.loads(sidecar.read_bytes())
        whole = np.load(data, mmap_mode="r")
        parts = whole[: note["train_tokens"]], whole[note["train_tokens"] :]
        tokens = Tokens(*parts, note["tokenizer"], note["counts"], note["content"])
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, EOFError, KeyError, TypeError) as error:
        log.warning("%s cannot be used (%s) and is made anew.", data, error)
        return None
    if content_hash(*parts) != tokens.content:
        log.warning("%s is damaged (its content is not what %s vouches for) and is made anew.", data, sidecar.name)
        return None
    return tokens
