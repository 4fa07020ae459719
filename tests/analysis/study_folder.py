"""A made-up study as a folder of runs: results, courses, configurations and pictures, as a sweep leaves them."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from made_up import meta_of, result_of, timing_of
from matplotlib.figure import Figure

TRUE = {"dense": 1.0, "oracle": 1.02, "window": 1.5, "random": 2.0}
LAYERS = 2


def write_study(
    folder: Path,
    conditions: list[str],
    lengths=(128, 256),
    seeds=4,
    unfinished: Callable[[dict[str, Any]], bool] = lambda run: False,
    **changes: Any,
) -> Path:
    """Write a study whose conditions lie between dense attention and the window, the first the best and dearest.

    Args:
        unfinished: whether a planned run has no result.
    """
    folder.mkdir(parents=True)
    meta = meta_of({label: {"indexer": label} for label in conditions}, lengths, seeds, **changes)
    draw = np.random.default_rng(0)
    finished = []
    for run in meta.runs:
        label, place = run["label"], [*conditions, *TRUE].index(run["label"])
        run["run_id"] = f"run{place}-L{run['seq_len']}-s{run['seed']}"
        if unfinished(run):
            continue
        loss = TRUE.get(label, 1.04 + 0.02 * place) + 0.1 * run["seed"] / seeds + draw.normal(0, 0.004)
        result = result_of(run, loss, 1.0 + 0.1 * run["seed"] / seeds, 1.5 + 0.1 * run["seed"] / seeds)
        cost = 40000 // (1 + place)
        result["params"] |= {"indexer": cost}
        result["flops"] |= {"indexer": 50 * cost, "select": 20 * cost}
        layers = [
            {"mass": 0.7 - 0.01 * place - 0.1 * n, "oracle_mass": 0.8, "recall": 0.6, "mean_k": 16.0 + place % 2 * n}
            for n in range(LAYERS)
        ]
        result |= {
            "val_accuracy": 1 - loss / 4,
            "dense_val_accuracy": 0.75,
            "selection": {"layers": layers},
            "dtype": "fp32",
        }
        result["provenance"] |= {"git": "0123456789ab", "code": "ba9876543210", "packages": {"torch": "2.0"}}
        write_run(folder / run["run_id"], result, run)
        finished.append((run, result))
    (folder / "timing.json").write_text(json.dumps(timing_of(finished)))
    (folder / "study.json").write_text(json.dumps(asdict(meta)))
    return folder


def write_run(folder: Path, result: dict[str, Any], run: dict[str, Any]) -> None:
    """Write one run's folder."""
    folder.mkdir()
    (folder / "result.json").write_text(json.dumps(result))
    choices = {"model": "tiny", "indexer": run["label"], "selector": "topk", "logger": "csv"}
    config = {"choices": choices, "overridden": ["selector"], "selector": {"_target_": "x", "k": 8}, "steps": None}
    (folder / "config.yaml").write_text(yaml.safe_dump(config | {key: run[key] for key in ("seq_len", "seed")}))
    rows = ["step,stage,stage_step,kind,train/indexer_loss,train/loss,val/loss"]
    rows += [f"{i},warmup,{i},train,{1 / i:.4f},," for i in range(1, 60)]
    rows += [f"{60 + i},sparse,{i},train,{0.1 / i:.4f},{result['val_loss'] + 1 / i:.4f}," for i in range(1, 60)]
    (folder / "metrics.csv").write_text("\n".join(rows) + "\n")
    if run["seed"] == 0:
        (folder / "maps").mkdir()
        figure = Figure(figsize=(2, 2))
        figure.add_subplot().imshow(np.tri(8))
        figure.savefig(folder / "maps" / "selection_000100.png", dpi=60)
