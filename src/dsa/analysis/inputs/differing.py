"""In what the configurations of several runs differ: what a reader needs to tell the runs apart, and no more."""

from typing import Any

from dsa.config import choice
from dsa.kinds import shown

LEFT_OUT = ("choices", "overridden", "hydra", "study", "output_dir", "cache_dir", "resume", "rerun", "stale",
            "dense_control", "allow_targets", "logger", "callbacks")  # fmt: skip
"""Settings that change no number."""


def differing(settings: list[dict[str, Any]]) -> dict[str, list[str]]:
    """What differs, by setting: its value in each run, empty where a run does not have it.

    A setting inside a group is told where the option alone does not tell it, and one that only repeats another, as
    `data.seed` does `seed`, is not.
    """
    flats = [flat(one) for one in settings]
    names = list(dict.fromkeys(name for one in flats for name in one))
    out: dict[str, list[str]] = {}
    for name in names:
        values = [one.get(name) for one in flats]
        group = name.split(".")[0]
        told = "." in name and follows(values, [bare(one, group) for one in settings])
        if len(set(values)) > 1 and not told and not any(repeats(name, values, other, out) for other in out):
            out[name] = ["" if value is None else value for value in values]
    return out


def flat(settings: dict[str, Any]) -> dict[str, str]:
    """The options by group, the settings at the top, then those inside groups under dotted names, each as typed."""
    groups = [group for group in settings.get("choices", {}) if group not in LEFT_OUT]
    out = {group: choice(settings, group) for group in groups}
    kept = {name: value for name, value in settings.items() if name not in LEFT_OUT}
    out |= {name: shown(value) for name, value in kept.items() if not isinstance(value, dict)}
    for name, value in kept.items():
        if isinstance(value, dict):
            out |= inside(value, f"{name}.")
    return {name: value for name, value in out.items() if "${" not in value}  # what it leads to is not known here


def inside(node: dict[str, Any], prefix: str) -> dict[str, str]:
    """Every single value below a group, classes left out."""
    out: dict[str, str] = {}
    for name, value in node.items():
        if isinstance(value, dict):
            out |= inside(value, f"{prefix}{name}.")
        elif not name.startswith("_"):
            out[f"{prefix}{name}"] = shown(value)
    return out


def bare(settings: dict[str, Any], group: str) -> str:
    """The option of a group, whether or not a value in it was changed."""
    return str(settings.get("choices", {}).get(group)).rstrip("~")


def follows(values: list[str | None], options: list[str]) -> bool:
    """Whether each option has one value throughout."""
    return len(set(zip(options, values, strict=True))) == len(set(options))


def repeats(name: str, values: list[str | None], other: str, known: dict[str, list[str]]) -> bool:
    """Whether a setting of a like name has these very values."""
    leaf = name.split(".")[-1]
    return (leaf == other or leaf.endswith(f"_{other}")) and values == known[other]
