"""Studies with a known truth, without a training run."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from dsa.analysis.inputs.meta import Meta
from dsa.analysis.inputs.prepared import Prepared, assemble
from dsa.analysis.judgement.analysis import Analysis
from dsa.artifacts.results import SCHEMA

CONTROLS = {"dense": 1.0, "oracle": 1.0, "window": 1.5, "random": 2.0}
JITTER = (-0.02, -0.01, 0.0, 0.01, 0.02)  # of turns [ms]
COST = {"a": 4000, "b": 3000, "c": 2000, "d": 1000}  # baseline first, then ever cheaper


def meta_of(conditions: dict[str, dict[str, Any]], lengths=(64,), seeds=8, planned=CONTROLS, **changes: Any) -> Meta:
    labels = [(label, "condition") for label in conditions] + [(label, "control") for label in planned]
    runs = [
        {
            "label": label,
            "role": role,
            "context": "",
            "seq_len": n,
            "seed": seed,
            "run_id": f"{label}-L{n}-s{seed}",
            "study": "made_up",
        }
        for n in lengths
        for label, role in labels
        for seed in range(seeds)
    ]
    values = {
        "name": "made_up",
        "metric": "val_loss",
        "baseline": next(iter(conditions)),
        "margin": {"val_loss": 0.01, "swap_val_loss": 0.01},
        "hypothesis": {"claim": "some_condition_differs", "metric": "val_loss"},
    }
    return Meta(conditions=conditions, runs=runs, **values | changes)


def result_of(run: dict[str, Any], loss: float, dense: float, window: float, **changes: Any) -> dict[str, Any]:
    """A result.json's content, as a run on a quiet machine would leave it."""
    flops = {"indexer": COST.get(run["label"], 500), "select": 0, "sparse_attention": 1000 * run["seq_len"]}
    return {
        "run_id": run["run_id"],
        "schema": SCHEMA,
        "status": "finished",
        "condition": {"indexer": run["label"]},
        "val_loss": loss,
        "swap_val_loss": loss + 0.02,
        "swap_window_loss": window + 0.02,
        "dense_val_loss": dense,
        "base_val_loss": dense + 0.02,
        "unigram_loss": 3.0,
        "density": 0.2,
        "params": {"total": 10**6 + COST.get(run["label"], 0), "indexer": COST.get(run["label"], 0)},
        "flops": {"dense_attention": 10**4 * run["seq_len"], **flops},
        "time": {"step_ms": 10.0 + sum(flops.values()) / 1000, "contended": False},
        "memory": {"peak_mb": 50.0},
        "speed_is_real": True,
        "provenance": {"machine": {"processor": "one", "cuda": None}},
        "warnings": [],
    } | changes


def made_up(
    losses: dict[str, Any],
    lengths=(64,),
    seeds=8,
    noise=0.002,
    between=0.1,
    seed=0,
    controls=CONTROLS,
    each=None,
    **changes: Any,
) -> Prepared:
    """A whole study.

    Args:
        losses: true loss of each condition, or its loss by length.
        noise: standard deviation of what a run adds to its true loss [nats].
        between: standard deviation of what a seed adds to all its runs [nats].
        each: changes a result, given (run, result).
    """
    draw = np.random.default_rng(seed)
    meta = meta_of({label: {"indexer": label} for label in losses}, lengths, seeds, controls, **changes)
    of_seed = {(n, s): draw.normal(0, between) for n in lengths for s in range(seeds)}
    own = {(run["label"], run["seq_len"], run["seed"]): draw.normal(0, noise) for run in meta.runs}

    def value(label: str, n: int, s: int) -> float:
        true = {**controls, **losses}[label]
        true = true[n] if isinstance(true, dict) else true
        return true + of_seed[n, s] + own[label, n, s]

    results = []
    for run in meta.runs:
        n, s = run["seq_len"], run["seed"]
        result = result_of(run, value(run["label"], n, s), value("dense", n, s), value("window", n, s))
        results.append(each(run, result) if each else result)
    return replace(assemble(meta, results), timing=timing_of(zip(meta.runs, results, strict=True)))


def timing_of(runs: Iterable[tuple[dict[str, Any], dict[str, Any] | None]]) -> dict[str, Any]:
    """The content of timing.json: every condition timed alone in five fresh processes, at what its runs took."""
    out: dict[str, Any] = {}
    for run, result in runs:
        if result is None or "time" not in result:
            continue
        alone = {"contended": False, "processes": len(JITTER), "machine": {"processor": "one"}, "turns": {}}
        here = out.setdefault(str(run["seq_len"]), alone)
        here["turns"][run["label"]] = [{"step_ms": result["time"]["step_ms"] + jitter} for jitter in JITTER]
    return out


def words(analysis: Analysis, metric: str = "val_loss") -> dict[tuple[str, int], str]:
    """What a study says of each condition at each length."""
    return {(c.label, c.seq_len): c.word for c in analysis.comparisons if c.metric == metric}


def named(analysis: Analysis, guard: str) -> list[str]:
    """The sentences of a guard."""
    return [g.sentence for g in analysis.guards if g.name == guard]
