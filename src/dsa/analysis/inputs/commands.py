"""The commands that make a study, and single runs of it, again."""

import functools
import re
import shlex
from pathlib import Path
from typing import Any

import pandas as pd

from dsa.analysis.inputs.meta import Meta
from dsa.analysis.inputs.prepared import Prepared
from dsa.artifacts.files import CONFIG
from dsa.config import config_dir, read_config

ALONE = ("callbacks", "logger", "trainer")  # groups that change no number
ALWAYS = ("seq_len", "seed")
OF_A_RUN = (*ALWAYS, "indexer_seed", "index_every", "judge", "steps", "dtype", "ops", "compile", "allow_targets")
FOLLOWS = ("seq_len", "seed")  # inside a group, where they are those of the run
PLAIN = re.compile(r"[A-Za-z_/][\w./-]*")


def command(prepared: Prepared, label: str, seq_len: int) -> str | None:
    """What trains a condition's first seed at a length by itself; None if its run kept no configuration.

    The number format is the one that the run found, not the one that this machine would.
    """
    rows = prepared.rows(label, seq_len)
    folders = rows["folder"].dropna() if "folder" in rows else pd.Series(dtype=str)
    path = Path(folders.iloc[0]) / CONFIG if len(folders) else None
    if path is None or not path.exists():
        return None
    known = rows["dtype"].iloc[0] if "dtype" in rows else ""
    config = config_in(path, path.stat().st_mtime_ns) | ({"dtype": known} if known else {})
    return shlex.join(["dsa", "train", *overrides(config)])


@functools.cache
def config_in(path: Path, changed: int) -> dict[str, Any]:
    """The configuration in a file that changed then; each figure asks for the same ones again."""
    return read_config(path, resolve=False)


def overrides(config: dict[str, Any]) -> list[str]:
    """A run's choices, every value of the groups in which one was changed, and what stands beside the groups."""
    out = [f"{group}={option}" for group, option in config.get("choices", {}).items() if group not in ALONE and option]
    for group in config.get("overridden", []):
        if group not in ALONE:
            out += leaves(config.get(group), group, config, text_of(group, config.get("choices", {}).get(group)))
    usual = top() | {"indexer_seed": config.get("seed")}
    given = [key for key in OF_A_RUN if key in config and (key in ALWAYS or config[key] != usual[key])]
    return out + [f"{key}={typed(config[key])}" for key in given]


def leaves(node: Any, key: str, config: dict[str, Any], shipped: str) -> list[str]:
    """Every single value below a key; shipped classes, and what follows from the run itself, are left out.

    Args:
        shipped: text of the chosen option's file.
    """
    if not isinstance(node, dict):
        return [f"{key}={typed(node)}"]
    out = []
    for name, inner in node.items():
        follows = name in FOLLOWS and inner == config.get(name)
        if not follows and name != "_partial_" and not (name == "_target_" and str(inner) in shipped):
            out += leaves(inner, f"{key}.{name}", config, shipped)
    return out


def typed(value: Any) -> str:
    """A value as Hydra reads it."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{typed(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return f"[{','.join(map(typed, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if not isinstance(value, str) or (PLAIN.fullmatch(value) and value.lower() not in WORDS):
        return str(value)
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


WORDS = ("null", "true", "false", "nan", "inf")  # no text, unless quoted


@functools.cache
def top() -> dict[str, Any]:
    """What stands beside the groups in the shipped configuration of a run."""
    return read_config(config_dir() / "train.yaml", resolve=False)


@functools.cache
def text_of(group: str, option: str | None) -> str:
    """The file of a shipped option; empty if there is none."""
    path = config_dir() / group / f"{option}.yaml"
    return path.read_text(encoding="utf-8") if option and path.is_file() else ""


def study_commands(meta: Meta) -> list[str]:
    """What makes the whole study again and analyses it; the analysis alone if no shipped yaml has its name."""
    again = []
    if (config_dir() / "study" / f"{meta.name}.yaml").exists():
        runs = [run for run in meta.runs if run.get("role") != "base"]
        lengths = sorted({int(run["seq_len"]) for run in runs})
        seeds = meta.seed or sorted({int(run["seed"]) for run in runs})
        lists = [f"seq_len={','.join(map(str, lengths))}", f"seed={','.join(map(str, seeds))}"]
        admitted = ["exploratory=true"] if meta.exploratory else []
        again = [shlex.join(["dsa", "sweep", f"study={meta.name}", *lists, *admitted])]
    return [*again, shlex.join(["dsa", "report", f"outputs/{meta.name}"])]
