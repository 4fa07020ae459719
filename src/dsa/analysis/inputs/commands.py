"""The commands that make a study, and single runs of it, again."""

import functools
import shlex
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import OmegaConf

from dsa.analysis.inputs.meta import Meta
from dsa.analysis.inputs.prepared import Prepared
from dsa.config import config_dir

ALONE = ("callbacks", "logger", "trainer")  # groups that change no number
CONFIG = "config.yaml"


def command(prepared: Prepared, label: str, seq_len: int) -> str | None:
    """What trains a condition's first seed at a length by itself; None if its run kept no configuration."""
    rows = prepared.rows(label, seq_len)
    folders = rows["folder"].dropna() if "folder" in rows else pd.Series(dtype=str)
    path = Path(folders.iloc[0]) / CONFIG if len(folders) else None
    if path is None or not path.exists():
        return None
    return shlex.join(["python", "train.py", *overrides(config_in(path, path.stat().st_mtime_ns))])


@functools.cache
def config_in(path: Path, changed: int) -> dict[str, Any]:
    """The configuration in a file that changed then; each figure asks for the same ones again."""
    return OmegaConf.to_container(OmegaConf.load(path), resolve=False)  # type: ignore[return-value]


def overrides(config: dict[str, Any]) -> list[str]:
    """A run's choices, and every value of the groups in which one was changed."""
    out = [f"{group}={option}" for group, option in config.get("choices", {}).items() if group not in ALONE and option]
    for group in config.get("overridden", []):
        if group not in ALONE:
            out += leaves(config.get(group), group)
    top = {key: config.get(key) for key in ("seq_len", "seed", "steps")}
    return out + [f"{key}={value}" for key, value in top.items() if value is not None]


def leaves(node: Any, key: str) -> list[str]:
    """Every single value below a key; classes and what follows from the run itself are left out."""
    if isinstance(node, dict):
        return [o for name, inner in node.items() if name not in LEFT_OUT for o in leaves(inner, f"{key}.{name}")]
    if isinstance(node, list):
        return [f"{key}=[{','.join(map(str, node))}]"]
    return [f"{key}={'null' if node is None else node}"]


LEFT_OUT = ("_target_", "_partial_", "seq_len", "seed")


def study_commands(meta: Meta) -> list[str]:
    """What makes the whole study again and analyses it; the analysis alone if no shipped yaml has its name."""
    again = []
    if (config_dir() / "study" / f"{meta.name}.yaml").exists():
        runs = [run for run in meta.runs if run.get("role") != "base"]
        lengths, seeds = (sorted({int(run[key]) for run in runs}) for key in ("seq_len", "seed"))
        lists = [f"seq_len={','.join(map(str, lengths))}", f"seed={','.join(map(str, seeds))}"]
        admitted = ["exploratory=true"] if meta.exploratory else []
        again = [shlex.join(["python", "sweep.py", f"study={meta.name}", *lists, *admitted])]
    return [*again, shlex.join(["python", "-m", "dsa.analysis", f"outputs/{meta.name}"])]
