"""What a study set out to answer, read from the study.json in its folder."""

import functools
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dsa.artifacts.files import STUDY
from dsa.artifacts.names import CONTROLS, USUAL_CONTROLS, check_folders, is_compared


@dataclass(frozen=True)
class Meta:
    """A study's question and plan.

    Args:
        hypothesis: claim, and what the claim speaks of.
        metric: the primary metric, on which the verdict rests.
        baseline: label of the condition that the others are compared with.
        margin: largest difference that counts as none, by metric.
        contrasts: planned ones by name: labels whose mean (of `sums`, sum) counts (plus), less that of others (minus).
        exploratory: declared beforehand to have too few seeds for a claim.
        conditions: overrides of each condition, by label.
        budget: that of the controls; `own` where each budget of the conditions has its own.
        seed: those that the study asked for; a confirmation's fresh ones come after them by themselves.
        runs: the planned runs: label, role, context, seq_len, seed, indexer_seed, judge, run_id, study, not_applicable.
    """

    name: str
    metric: str
    baseline: str
    conditions: dict[str, dict[str, Any]]
    runs: list[dict[str, Any]]
    question: str = ""
    hypothesis: dict[str, Any] = field(default_factory=dict)
    margin: dict[str, float] = field(default_factory=dict)
    controls: tuple[str, ...] = USUAL_CONTROLS
    exploratory: bool = False
    contrasts: dict[str, dict[str, Any]] = field(default_factory=dict)
    common: dict[str, Any] = field(default_factory=dict)
    budget: Any = None
    seed: list[int] = field(default_factory=list)

    @functools.cached_property
    def recorded(self) -> dict[str, str]:
        """Context of each label, as the plan says it."""
        return {run["label"]: run["context"] for run in self.runs if run.get("role") != "base"}

    def options(self, label: str) -> dict[str, Any]:
        """The part of a condition that is compared."""
        return {key: value for key, value in self.conditions[label].items() if is_compared(key, self.budget)}

    def context(self, label: str) -> str:
        """The rest of a condition (model, data), which it shares with its own controls; empty if all share it."""
        return self.recorded[label]

    def control(self, label: str) -> str | None:
        """Which control a label names; None if it is a condition."""
        if label in self.conditions:
            return None
        return next((name for name in CONTROLS if label == name or label.startswith(f"{name}-")), None)

    def plans(self, kind: str) -> bool:
        """Whether the study has a control of this kind."""
        return any(run.get("role") == "control" and self.control(run["label"]) == kind for run in self.runs)

    def reference(self, label: str) -> str:
        """The condition that this one is compared with: the baseline, or what takes its place in another context."""
        here = self.context(label)
        if here == self.context(self.baseline):
            return self.baseline
        wanted = self.options(self.baseline)
        same = [other for other in self.conditions if self.context(other) == here]
        return next((o for o in same if self.options(o) == wanted and len(same) > 1), self.baseline)


def read_meta(folder: str | Path) -> Meta:
    """The plan of the study in a folder.

    Raises:
        FileNotFoundError: the folder holds no study.json.
        ValueError: study.json lacks something, or names folders outside the output folder.
    """
    path = Path(folder) / STUDY
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: give the folder of a study, as outputs/quick.")
    values = json.loads(path.read_text())
    lacking = [key for key in ("name", "metric", "baseline", "conditions", "runs") if key not in values]
    if lacking:
        raise ValueError(f"{path}: it lacks {', '.join(lacking)}.")
    if any(run.get("role") != "base" and run.get("context") is None for run in values["runs"]):
        raise ValueError(f"{path}: its runs lack context, older code planned it; plan it again with sweep.py.")
    check_folders(values, path)
    known = {key: values[key] for key in Meta.__dataclass_fields__ if key in values}
    return Meta(**known | {"controls": tuple(values.get("controls", USUAL_CONTROLS))})
