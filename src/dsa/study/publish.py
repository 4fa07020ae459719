"""What a study says, on W&B: one run of its own with verdict, results, figures and report."""

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import OmegaConf

from dsa.analysis.output.figures.every import FOLDER
from dsa.analysis.output.files import CSV, PARQUET, VERDICT
from dsa.analysis.output.report.page import REPORT
from dsa.training.mirrors import WandbMirror, harmless, wandb_id
from dsa.training.result import FILE

PLACE = "wandb-report"
SHOWN = ("label", "kind", "context", "seq_len", "seed", "val_loss", "swap_val_loss", "val_accuracy", "dense_val_loss",
         "density", "selection.mean.mass", "selection.mean.recall", "params.indexer", "flops.indexer",
         "flops.sparse_attention", "time.step_ms", "time.contended", "memory.peak_mb", "run_id")  # fmt: skip


def publish(folder: Path, mode: str | None = None) -> None:
    """Send an analysed study as the run <study>-report; sending it again replaces that run.

    Offline, the files are kept in <study>/wandb-report. Nothing that W&B does stops the caller.

    Args:
        folder: outputs/<study>, with the report that `python -m dsa.analysis` writes.
        mode: auto, online, offline or disabled; None = as the study's runs were logged, nothing if they were not.

    Raises:
        FileNotFoundError: the study was not analysed yet.
    """
    if not (folder / VERDICT).exists() or not (folder / REPORT).exists():
        raise FileNotFoundError(f"{folder}: no {VERDICT} and {REPORT} there yet; run python -m dsa.analysis {folder}.")
    logger, group = logged(folder)
    mode = mode or logger.get("mode", "disabled")
    if mode == "disabled":
        return
    target = folder / PLACE
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    verdict: dict[str, Any] = json.loads((folder / VERDICT).read_text())
    mirror = WandbMirror(logger.get("project", "dsa"), logger.get("entity"), mode)
    mirror.start(target, identity(folder, verdict, group), settings(verdict))
    send(mirror, folder)
    for picture in sorted((folder / FOLDER).glob("*.png")):
        mirror.image(f"figures/{picture.stem}", 0, picture)
    mirror.summary(summary(verdict))
    mirror.finish(failed=False)


def logged(folder: Path) -> tuple[dict[str, Any], str | None]:
    """How the study's first run was logged: its logger's settings, empty if it was not W&B, and its group."""
    first = next(iter(sorted(folder.glob(f"*/{FILE}"))), None)
    if first is None or not (first.parent / "config.yaml").exists():
        return {}, None
    config: Any = OmegaConf.to_container(OmegaConf.load(first.parent / "config.yaml"), resolve=False)
    logger = config.get("logger") or {}
    return (logger if "project" in logger else {}), config.get("group")


def identity(folder: Path, verdict: dict[str, Any], group: str | None) -> dict[str, Any]:
    """Who the run is: its id follows from the folder's name, so that sending again replaces it."""
    return {
        "id": f"{folder.resolve().name}-report",
        "name": "report",
        "group": group or verdict["study"],
        "job_type": "report",
        "tags": [f"L{length}" for length in verdict["lengths"]] + [verdict["verdict"]],
        "stages": [],
        "resumed": False,
    }


def settings(verdict: dict[str, Any]) -> dict[str, Any]:
    """What the study set out to answer."""
    return {name: verdict[name] for name in ("study", "question", "hypothesis", "metric", "baseline", "margin")}


@harmless
def send(mirror: WandbMirror, folder: Path) -> None:
    """The table of runs, the page, and all files together as an artifact."""
    import wandb

    runs = pd.read_parquet(folder / PARQUET)
    table = runs[[name for name in SHOWN if name in runs]].astype(object)
    content = wandb.Table(dataframe=table.where(table.notna(), None))
    mirror.run.log({"results": content, "report": wandb.Html(str(folder / REPORT), inject=False)})
    artifact = wandb.Artifact(wandb_id(f"{folder.resolve().name}-report"), type="report")
    for name in (REPORT, VERDICT, CSV, PARQUET):
        artifact.add_file(str(folder / name))
    for picture in sorted((folder / FOLDER).glob("*")):  # add_dir would announce itself on the terminal
        artifact.add_file(str(picture), name=f"{FOLDER}/{picture.name}")
    mirror.run.log_artifact(artifact)


def summary(verdict: dict[str, Any]) -> dict[str, Any]:
    """The verdict, and the answer for each length."""
    out = {name: verdict[name] for name in ("verdict", "sentence", "finished")}
    for best in verdict["best"]:
        place = f"L{best['seq_len']}" + (f"-{best['context']}" if best["context"] else "")
        out |= {f"best/{place}/{name}": best[name] for name in ("best", "recommended", "shown", "mean", "sentence")}
    return out | {"missing": sum(gap["state"] != "not applicable" for gap in verdict["gaps"])}
