"""The files of a pretrained model: found in a folder, a GGUF file or on the hub, and told apart by what they hold."""

import functools
import json
import logging
import os
from pathlib import Path
from typing import Any

from filelock import FileLock

from dsa.artifacts.atomic import replacing_folder
from dsa.artifacts.digest import digest
from dsa.artifacts.store import file_digest
from dsa.cache_folder import cache_folder
from dsa.pretrained.fetch import SHIPPED, place_of
from dsa.pretrained.libraries import gguf_reader, quiet, transformers

logger = logging.getLogger(__name__)
WEIGHTS = ("*.safetensors", "*.bin")
READ = [*WEIGHTS, "*.json", "*.model", "*.txt"]
"""What is taken of a repository on the hub."""


def files_of(path: str) -> Path:
    """The folder of a pretrained model in the form that transformers reads.

    A GGUF file is converted once and kept in the cache folder, in float32: reading one takes longer than a short run.

    Args:
        path: a folder, a GGUF file, a name on the hub, or that of a model that `dsa fetch` fetched.

    Raises:
        ValueError: there is no such model; one sentence says what was looked for and where.
    """
    place = fetched(path) if path in SHIPPED else Path(path).expanduser()
    if place.suffix == ".gguf":
        if not place.is_file():
            raise ValueError(f"model.path = {path}: there is no such file. `dsa fetch` lists models that it can fetch.")
        return converted(place)
    if place.is_dir():
        check_folder(path, place)
        return place
    if place.is_absolute() or path.count("/") != 1 or path.startswith("."):
        there = "that is no folder" if place.exists() else f"nothing is there (seen from {Path.cwd()})"
        raise ValueError(
            f"model.path = {path}: {there}. Give a folder, a GGUF file, or a name on the hub (owner/model)."
        )
    return downloaded(path)


def fetched(name: str) -> Path:
    """The file of a model that was fetched.

    Raises:
        ValueError: it was not.
    """
    place = place_of(name)
    if not place.is_file():
        raise ValueError(
            f"model = {name}: it is not in the cache folder ({place.parent}). Once before: dsa fetch {name}"
        )
    return place


def check_folder(path: str, folder: Path) -> None:
    """Refuse a folder in which no whole model lies."""
    if not (folder / "config.json").is_file() and (folder / "adapter_config.json").is_file():
        raise ValueError(
            f"model.path = {path}: adapters alone lie there (adapter_config.json). Merge them into their model (PEFT's "
            "merge_and_unload), save it, and give its folder."
        )
    if not (folder / "config.json").is_file():
        raise ValueError(f"model.path = {path}: no config.json there, which every model of transformers has.")
    try:
        told = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"model.path = {path}: its config.json is no JSON ({error}).") from error
    if not isinstance(told, dict):
        raise ValueError(f"model.path = {path}: its config.json holds no object of names and values.")
    if not weight_files(folder):
        raise ValueError(f"model.path = {path}: no weights there (*.safetensors or *.bin).")


def weight_files(folder: Path) -> list[Path]:
    """The files that hold a model's weights."""
    return sorted(file for pattern in WEIGHTS for file in folder.glob(pattern))


@functools.cache  # a process asks the hub once
def downloaded(name: str) -> Path:
    """A model on the hub, from its cache on this machine where it lies there.

    Raises:
        ValueError: neither the cache nor the hub has it, or the hub cannot be reached.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=READ))
    except RepositoryNotFoundError:
        why = "the hub has no model of this name, or it asks for a login"
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        why = f"it is not in the cache, and the hub cannot be reached ({type(error).__name__})"
    raise ValueError(f"model.path = {name}: no such folder, and {why}. Give a folder or a GGUF file.")


def converted(file: Path) -> Path:
    """A GGUF file's model as a folder of the cache: config, weights in float32, tokenizer.

    Raises:
        ValueError: the file cannot be read.
    """
    gguf_reader()
    folder = cache_folder() / "models" / f"{file.stem}-{digest(sha(file), 12)}"
    if (folder / "config.json").is_file():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not (folder / "config.json").is_file():
            logger.info("reading %s once, and keeping it as %s", file.name, folder)
            with replacing_folder(folder) as temporary:
                convert(file, temporary)
    return folder


def convert(file: Path, folder: Path) -> None:
    """Write a GGUF file's model and tokenizer in the form that transformers reads fast."""
    import torch

    library = transformers()
    where: dict[str, Any] = {"gguf_file": file.name}
    try:
        with quiet(library), torch.device("cpu"):  # whoever asks for sizes alone: weights are read
            tokenizer = library.AutoTokenizer.from_pretrained(str(file.parent), **where)
            kind = library.AutoModelForCausalLM
            read = kind.from_pretrained(str(file.parent), **where, dtype="float32")
            config = read.config
            del config.quantization_config  # its weights are numbers now, and only such a model can be saved
            model = kind.from_config(config)
            model.load_state_dict(read.state_dict())
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
    except Exception as error:  # the reader fails in as many ways as a file can be wrong
        raise ValueError(
            f"model.path = {file}: this GGUF file cannot be read ({type(error).__name__}: {error}). It may be "
            "damaged or half downloaded, or of an architecture that transformers does not read from GGUF."
        ) from error


def sha(file: Path) -> str:
    """Hash of a file, read once while it stays as it is."""
    now = file.stat()
    return file_digest(file, now.st_size, now.st_mtime_ns)


def fingerprint(path: str) -> str:
    """Of the weights and configuration that a model's numbers come from, as they lie there now."""
    folder = files_of(path)
    files = [folder / "config.json", *weight_files(folder)]
    return digest([sha(Path(os.path.realpath(file))) for file in files])
