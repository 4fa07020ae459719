"""Names that several rooms share."""

from pathlib import Path
from typing import Any

from dsa.checks import folder_name

GROUPS = ("indexer", "pattern", "selector", "precision")
"""The config groups that make a composition."""

SHARING = "index_every"
COMPARED = (*GROUPS, "objective", SHARING)
"""What conditions may differ in and still share base and controls: groups, and settings of the indexers alone. All else
is context."""

BUDGET = "selector.k"
OWN = "own"
"""What a study's `budget` says where each value of BUDGET has controls of its own: it is context then."""


def is_compared(key: str, budget: Any) -> bool:
    """Whether conditions that differ in this setting are compared with each other, on one base beside one set of
    controls.

    Args:
        budget: of the study's controls.
    """
    return key.split(".")[0] in COMPARED and not (budget == OWN and key == BUDGET)


CONTROLS = ("dense", "oracle", "random", "window", "sink_window", "static", "replicate")
"""What an indexer is judged against: selectors that use none; static, a trained score of the key alone; and replicate,
the baseline again with other initial weights of its indexers (A/A)."""

USUAL_CONTROLS = CONTROLS[:5]
"""Those of a study that names none."""

CONTENDED = 0.1
"""Share of the cores that other processes may use before times count as contended."""

METRICS = ("val_loss", "swap_val_loss", "val_accuracy", "swap_val_accuracy", "val_exact_match", "swap_val_exact_match")
"""Measures of quality that a verdict may rest on; those of `swap` with the backbone untouched."""

CLAIMS = ("some_condition_differs", "no_quality_loss", "contrasts_differ", "on_pareto_front", "order_depends_on_length",
          "order_depends_on_size", "takes_less_time", "cannot_discriminate")  # fmt: skip
"""What a study's hypothesis may state."""

OF_TURNS = ("takes_less_time",)
"""Claims that rest on the turns in which conditions are timed at the end, and not on seeds."""


def check_folders(plan: dict[str, Any], path: Path) -> None:
    """Refuse a study.json that would lead out of the output folder: whatever names a folder there names just one.

    Args:
        plan: its content.
        path: of the file, for the sentence.

    Raises:
        ValueError: a name is a path.
    """
    named = [("name", plan["name"])] if "name" in plan else []
    for run in plan["runs"]:
        named += [(key, run[key]) for key in ("study", "run_id") if run.get(key) is not None]
        named += [(f"artifacts.{key}", name) for key, name in (run.get("artifacts") or {}).items() if name is not None]
    for key, name in named:
        folder_name(name, f"{path}: {key}")
