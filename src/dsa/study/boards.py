"""A study's dashboard on W&B as code: a workspace of panels, and a report with the same panels and the verdict.

Only keys that the study's own runs have stand on a panel: each is looked up in what W&B is told of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import wandb_workspaces.reports.v2 as wr
import wandb_workspaces.workspaces as ws

from dsa.artifacts.atomic import replacing
from dsa.artifacts.files import VERDICT
from dsa.study.publish import TABLE
from dsa.study.states import planned
from dsa.study.sync import records_of, rows_of
from dsa.study.workers.claim import read
from dsa.training.dashboard import flat_config
from dsa.training.log import FIXED
from dsa.training.loggers import stage_metric

PLACE = "dashboard"
LOSSES = {"val/swap_loss": "loss, backbone untouched", "val/loss": "loss, after joint training"}
COSTS = {"cost/flops": "operations", "cost/indexer_params": "indexer parameters"}
TITLE = 128  # characters that W&B allows


@dataclass(frozen=True)
class Known:
    """What W&B is told of a study's runs: names in their configurations, their courses, and their final values."""

    config: frozenset[str]
    logged: frozenset[str]
    final: frozenset[str]


@dataclass(frozen=True)
class Boards:
    """A study's workspace and report."""

    workspace: ws.Workspace
    report: wr.Report

    @property
    def contents(self) -> dict[str, str]:
        """Both as W&B takes them, by file name."""
        models = {"workspace.json": self.workspace._to_model(), "report.json": self.report._to_model()}
        return {
            name: model.model_dump_json(by_alias=True, exclude_none=True, indent=1) for name, model in models.items()
        }

    def keep(self, folder: Path) -> list[Path]:
        """Write both into a study's folder; the paths."""
        (folder / PLACE).mkdir(exist_ok=True)
        paths = []
        for name, text in self.contents.items():
            with replacing(folder / PLACE / name) as temporary:
                temporary.write_text(text + "\n")
            paths.append(folder / PLACE / name)
        return paths

    def send(self) -> list[str]:
        """Make both on W&B, new ones each time; their addresses."""
        self.workspace.save()
        self.report.save()
        return [self.workspace.url, self.report.url]


def boards(folder: Path, entity: str = "", admitted: Sequence[str] = ()) -> Boards:
    """The dashboard of the study in a folder, as far as it is finished.

    Args:
        entity: who owns the project, unless the study's plan says it; empty in what is only kept.
        admitted: packages of the user's own whose classes the runs' configurations may name.

    Raises:
        ValueError: the folder holds no study's plan.
    """
    plan = planned(folder)
    project, entity = plan["logger"].get("project", "dsa"), plan["logger"].get("entity") or entity
    sections = panels(known(folder, admitted))
    group = f"{plan['name']} {plan['created']}"
    chosen = f'Metric("Group") == "{group}"'
    workspace = ws.Workspace(
        entity=entity,
        project=project,
        name=plan["name"],
        sections=[ws.Section(name=name, panels=mine, is_open=True) for name, mine in sections.items()],
        runset_settings=ws.RunsetSettings(filters=chosen, groupby=[ws.Metric("JobType")]),
    )
    runs = wr.Runset(entity=entity, project=project, name=group, filters=chosen)
    blocks: list[Any] = [*answer(folder)]
    for name, mine in sections.items():
        blocks += [wr.H2(name), wr.PanelGrid(runsets=[runs], panels=mine)]
    title = f"{plan['name']}: {plan['question']}"[:TITLE]
    return Boards(workspace, wr.Report(entity=entity, project=project, title=title, blocks=blocks))


def known(folder: Path, admitted: Sequence[str]) -> Known:
    """What W&B is told of the runs in a study's group."""
    plan = planned(folder)
    config: set[str] = set()
    logged: set[str] = set()
    final: set[str] = set()
    for record in records_of(folder, admitted):
        if record.board.group != f"{plan['name']} {plan['created']}":
            continue  # what studies share stands in a group of its own
        config |= flat_config(record.board.spec, record.own).keys()
        final |= record.final.keys()
        for row in rows_of(record.sources):
            stage = str(row["stage"])
            own = [str(name) for name, value in row.items() if name not in FIXED and pd.notna(value)]
            logged |= {"step", f"{stage}/step", *(stage_metric(stage, name) for name in own)}
    return Known(frozenset(config), frozenset(logged), frozenset(final))


def answer(folder: Path) -> list[Any]:
    """The verdict, where the study was analysed."""
    verdict = read(folder / VERDICT)
    if not verdict:
        return []
    said = [wr.P(f"{verdict['verdict']}: {verdict['sentence']}")]
    return [
        wr.H1(verdict["question"] or verdict["study"]),
        *said,
        *(wr.P(best["sentence"]) for best in verdict["best"]),
    ]


def panels(keys: Known) -> dict[str, list[Any]]:
    """Panels by section; a section without any is left out."""
    layers = sorted(key for key in keys.final if key.startswith("select/layer_"))
    curves = sorted(key for key in keys.logged if key.startswith("warmup/indexer_loss"))
    length = partial(scatter, keys, "seq_len", of=wr.Config)
    wanted = {
        "Quality by length": [*(length(key, f"{what} by length") for key, what in LOSSES.items()),
                              length("select/mass", "attention mass captured, by length")],
        "Mass by layer": [bars([key for key in layers if key.endswith("/mass")], "attention mass captured, by layer"),
                          bars([key for key in layers if key.endswith("/oracle_mass")], "the most that could be")],
        "Quality against cost": [scatter(keys, cost, key, f"{what} against {told}", of=wr.SummaryMetric)
                                 for key, what in LOSSES.items() for cost, told in COSTS.items()],
        "Training curves": [lines(keys, "warmup/step", curves, "warm-up: the indexers learn [nats]"),
                            lines(keys, "sparse/step", ["sparse/loss"], "joint training: the model learns [nats]"),
                            lines(keys, "step", ["val/loss"], "loss on held-out data [nats]")],
        "Every run": [wr.WeavePanelSummaryTable(table_name=TABLE)],
    }  # fmt: skip
    there = {name: [panel for panel in mine if panel is not None] for name, mine in wanted.items()}
    return {name: mine for name, mine in there.items() if mine}


def scatter(keys: Known, x: str, y: str, title: str, of: Any) -> Any:
    """A final value against a setting or another final value; None where no run has them.

    Args:
        of: wr.Config or wr.SummaryMetric: what x is.
    """
    if x not in (keys.config if of is wr.Config else keys.final) or y not in keys.final:
        return None
    return wr.ScatterPlot(title=title, x=of(x), y=wr.SummaryMetric(y), log_x=True)


def bars(found: list[str], title: str) -> Any:
    """Final values side by side; None without any."""
    return wr.BarPlot(title=title, metrics=[wr.SummaryMetric(key) for key in found]) if found else None


def lines(keys: Known, x: str, found: list[str], title: str) -> Any:
    """Courses; None where no run logged them."""
    there: list[Any] = [key for key in found if key in keys.logged]
    return wr.LinePlot(title=title, x=x, y=there) if there and x in keys.logged else None
