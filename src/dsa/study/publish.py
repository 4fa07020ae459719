"""What a study says, on W&B: one run of its own with verdict, results, figures and report."""

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd

from dsa.analysis.output.figures.every import FOLDER
from dsa.analysis.output.files import CSV, PARQUET
from dsa.analysis.output.report.page import REPORT
from dsa.artifacts.files import VERDICT
from dsa.artifacts.frame import load_study
from dsa.study.states import planned
from dsa.training.loggers import WandbLogger, harmless, wandb_id

PLACE = "wandb-report"
TABLE = "results"
OF_THE_PLAN = ("label", "kind", "context", "seq_len", "seed", "judge", "phase", "run_id")
SHOWN = (*OF_THE_PLAN[:-1], "indexer_seed", "status", "val_loss", "swap_val_loss", "val_accuracy", "dense_val_loss",
         "base_val_loss", "density", "selection.mean.mass", "selection.mean.recall", "params.indexer", "flops.indexer",
         "flops.sparse_attention", "time.step_ms", "time.contended", "memory.peak_mb", "run_id")  # fmt: skip


def publish(folder: Path, mode: str | None = None) -> None:
    """Send an analysed study as the run <study>-report; sending it again replaces that run.

    Offline, the files are kept in <study>/wandb-report. Nothing that W&B does stops the caller.

    Args:
        folder: outputs/<study>, with the report that `python -m dsa.analysis` writes.
        mode: auto, online, offline or disabled; None = as the study's runs are logged, nothing if they are not.

    Raises:
        FileNotFoundError: the study was not analysed yet.
    """
    if not (folder / VERDICT).exists() or not (folder / REPORT).exists():
        raise FileNotFoundError(f"{folder}: no {VERDICT} and {REPORT} there yet; run python -m dsa.analysis {folder}.")
    plan = planned(folder)
    logger = plan["logger"] if "project" in plan["logger"] else {}
    mode = mode or logger.get("mode", "disabled")
    if mode == "disabled":
        return
    target = folder / PLACE
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    verdict: dict[str, Any] = json.loads((folder / VERDICT).read_text())
    board = WandbLogger(logger.get("project", "dsa"), logger.get("entity"), mode)
    board.start(target, identity(folder, verdict, f"{plan['name']} {plan['created']}"), settings(verdict))
    send(board, folder)
    for picture in sorted((folder / FOLDER).glob("*.png")):
        board.image(f"figures/{picture.stem}", 0, picture)
    board.summary(summary(verdict))
    board.finish(failed=False)


def identity(folder: Path, verdict: dict[str, Any], group: str) -> dict[str, Any]:
    """Who the run is, in the group of its study; its id follows from the folder's name: sending again replaces it."""
    return {
        "id": f"{folder.resolve().name}-report",
        "name": f"{verdict['study']} report",
        "group": group,
        "job_type": "report",
        "tags": [f"L{length}" for length in verdict["lengths"]] + [verdict["verdict"]],
        "stages": [],
        "resumed": False,
    }


def settings(verdict: dict[str, Any]) -> dict[str, Any]:
    """What the study set out to answer."""
    return {name: verdict[name] for name in ("study", "question", "hypothesis", "metric", "baseline", "margin")}


@harmless
def send(board: WandbLogger, folder: Path) -> None:
    """The table of all runs, the page, and all files together as an artifact."""
    import wandb

    content = wandb.Table(dataframe=table_of(folder))
    board.run.log({TABLE: content, "report": wandb.Html(str(folder / REPORT), inject=False)})
    artifact = wandb.Artifact(wandb_id(f"{folder.resolve().name}-report"), type="report")
    for name in (REPORT, VERDICT, CSV, PARQUET):
        artifact.add_file(str(folder / name))
    for picture in sorted((folder / FOLDER).glob("*")):  # add_dir would announce itself on the terminal
        artifact.add_file(str(picture), name=f"{FOLDER}/{picture.name}")
    board.run.log_artifact(artifact)


def table_of(folder: Path) -> pd.DataFrame:
    """One row for each run that has ended, also for those that are no run of their own there."""
    named = pd.DataFrame(planned(folder)["runs"])[list(OF_THE_PLAN)].dropna(subset=["run_id"])
    results = load_study(folder).drop(columns=[name for name in OF_THE_PLAN if name != "run_id"], errors="ignore")
    whole = named.merge(results, on="run_id")
    table = whole[[name for name in SHOWN if name in whole]].astype(object)
    return table.where(table.notna(), None)


def summary(verdict: dict[str, Any]) -> dict[str, Any]:
    """The verdict, and the answer for each length."""
    out = {name: verdict[name] for name in ("verdict", "sentence", "finished")}
    for best in verdict["best"]:
        place = f"L{best['seq_len']}" + (f"-{best['context']}" if best["context"] else "")
        out |= {f"best/{place}/{name}": best[name] for name in ("best", "recommended", "shown", "mean", "sentence")}
    return out | {"missing": sum(gap["state"] != "not applicable" for gap in verdict["gaps"])}
