"""Studies whose truth is planted: indexers with their parameters, and times of their turns."""

from dataclasses import replace
from typing import Any

import numpy as np
from analysis.made_up import made_up

from dsa.analysis.inputs.prepared import Prepared
from dsa.analysis.judgement.analysis import analyse
from paper.source import Study
from paper.times import Times

PARAMETERS = {"h4d64": 41472, "h2d32": 12544, "h1d16": 4224}


def sized(run: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
    count = PARAMETERS.get(run["label"], 0)
    return result | {"params": {"indexer": count, "total": 90000 + count}, "memory": {"peak_mb": 1 + count / 1e5}}


def indexers(losses: dict[str, Any], **changes: Any) -> Prepared:
    return made_up(losses, seeds=20, **{"name": "optimal_indexer_config", "each": sized} | changes)


def study(prepared: Prepared, times: dict[str, Any] | None = None) -> Study:
    prepared = replace(prepared, timing=times or {})
    return Study(analyse(prepared), Times(prepared), ("abc",))


def timed(
    ms: dict[str, list[float]], contended: bool = False, turns: bool = True, fresh: bool = True
) -> dict[str, Any]:
    """One length of timing.json, whose training step took these turns, twice each.

    Args:
        fresh: each turn in a process of its own.
    """
    medians = {label: {"step_ms": float(np.median(each))} for label, each in ms.items()}
    every = {label: [{"step_ms": one} for one in each * 2] for label, each in ms.items()}
    processes = {"processes": 2 * max(map(len, ms.values()))} if fresh else {}
    return {"contended": contended, "times": medians} | processes | ({"turns": every} if turns else {})
