"""Look after a study: python -m dsa.study status|time|conclude|sync|browse outputs/<study>"""

import argparse
import sys
import webbrowser
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from dsa.analysis.output.cells import wide_console
from dsa.artifacts.files import TIMING, VERDICT
from dsa.artifacts.store import PLACES, RECORD
from dsa.signals import read_to_the_end
from dsa.study.states import code_now, planned, sound
from dsa.study.workers.claim import CLAIM, ENDED, given_up, read, working
from dsa.study.workers.places import JOBS
from dsa.study.workers.queue import QUEUED, queued
from dsa.targets import TargetRefused

SHOWN = ("done", "running", "queued", "failed", "stale", "interrupted", "missing")


def main(arguments: list[str] | None = None) -> int:
    """The command line; its exit status."""
    parser = argparse.ArgumentParser(prog="python -m dsa.study", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("status", "how many runs are done, running, queued, failed, stale"),
        ("time", "time its conditions alone and in turns, on this machine; trains nothing"),
        ("conclude", "time its conditions, analyse whatever has finished"),
        ("sync", "upload the study to W&B, each run rebuilt from its files"),
        ("browse", "open the study's report, or its runs with `wandb leet`"),
    ):
        one = commands.add_parser(name, help=text)
        one.add_argument("folder", type=Path, help="outputs/<study>")
        one.add_argument(
            "--allow-target", action="append", default=[], metavar="PACKAGE",
            help="a package of your own whose classes the runs' configurations may name; the folder cannot admit it",
        )  # fmt: skip
    given = parser.parse_args(arguments)
    try:
        planned(given.folder)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    commanded = {"status": status, "time": again, "conclude": end, "sync": upload, "browse": browse}
    try:
        return commanded[given.command](given.folder, given.allow_target)
    except (TargetRefused, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def status(folder: Path, admitted: list[str]) -> int:
    """Runs of each condition by state, artifacts, and what is under way."""
    plan, jobs = planned(folder), jobs_of(folder)
    code = {made: code_now(roots) for made, roots in plan["codes"].items()}
    rows: dict[str, Counter[str]] = {}
    for run in plan["runs"]:
        label = f"{run['label']} ({run['phase']})" if run["phase"] else run["label"]
        counts = rows.setdefault(label, Counter())
        counts["not applicable" if run["run_id"] is None else state(folder, run, code, jobs)] += 1
    columns = [name for name in (*SHOWN, "not applicable") if any(counts[name] for counts in rows.values())]
    table = Table("condition", *columns)
    for label, counts in rows.items():
        table.add_row(escape(label), *(str(counts[name] or "") for name in columns))
    console = wide_console()
    console.print(table)
    console.print("; ".join(artifacts(folder, plan)))
    for job in jobs:
        for line in job.told:
            console.print(line, markup=False)
    return 0


@dataclass(frozen=True)
class Active:
    """A job that is under way or was given up.

    Args:
        runs: that it carries out, as <study>/<run_id>.
    """

    folder: Path
    state: str
    runs: frozenset[str]

    @property
    def told(self) -> list[str]:
        """Where it is under way; nothing if nobody is at it."""
        claim, note = read(self.folder / CLAIM), read(self.folder / QUEUED)
        if self.state == "running":
            return [f"running: {self.folder.name} ({claim.get('host')} process {claim.get('pid')})"]
        return (
            [f"queued: {self.folder.name} ({note['cluster']} job {note['job_id']})"] if self.state == "queued" else []
        )


def jobs_of(study: Path) -> list[Active]:
    """Jobs of a study that are under way, wait in a scheduler, or died."""
    out = []
    for folder in sorted((study.parent / JOBS).glob("*-*")):
        now = "running" if working(folder) else "queued" if queued(folder) else None
        if now is None and given_up(folder):
            now = "interrupted"
        if now is None:
            continue
        told = [read(path) for path in folder.glob("*.json") if path.name not in (CLAIM, ENDED, QUEUED)]
        entries = [entry for job in told for entry in job.get("runs", ())]
        needed = [entry for job in told for entry in job.get("makes", ())]
        if any(entry["config"]["study"] == study.name for entry in [*entries, *needed]):
            out.append(Active(folder, now, frozenset(f"{run['study']}/{run['run_id']}" for run in entries)))
    return out


def state(folder: Path, run: dict[str, Any], code: dict[str, str], jobs: list[Active]) -> str:
    """How far a run is."""
    result = sound(folder / run["run_id"])
    if result is not None and result.status == "finished":
        made = result.provenance.get("code")
        return "done" if code.get(run["code"]) == made else "stale"
    if result is not None:
        return "failed"
    own = f"{run['study']}/{run['run_id']}"
    return next((job.state for job in jobs if own in job.runs), "missing")


def artifacts(folder: Path, plan: dict[str, Any]) -> list[str]:
    """How many of the artifacts that the runs need are there."""
    out = []
    for kind, place, name in (("base", "base", "bases"), ("indexers", "indexers", "indexers"),
                              ("joint", "joint", "joint trainings")):  # fmt: skip
        wanted = {run["artifacts"][kind] for run in plan["runs"] if run["artifacts"].get(kind)}
        if wanted:
            there = sum((folder.parent / PLACES[place] / one / RECORD).exists() for one in wanted)
            out.append(f"{name} {there} of {len(wanted)}")
    return out


def again(folder: Path, admitted: list[str]) -> int:
    """Time the conditions anew."""
    from dsa.study.timing import time_study

    time_study(folder, again=True, admitted=admitted)
    for length, timed in read(folder / TIMING).items():
        table = Table("condition", "step, ms", "forward, ms", title=f"length {length}", title_justify="left")
        for label, times in timed["times"].items():
            table.add_row(escape(label), f"{times['step_ms']:.1f}", f"{times['infer_ms']:.1f}")
        wide_console().print(table)
        if timed["contended"]:
            print(f"contended: others used {100 * timed['others']:.0f} % of the processors meanwhile")
    return 0


def end(folder: Path, admitted: list[str]) -> int:
    """What a sweep does when its jobs are over."""
    from dsa.study.conclude import conclude

    return 0 if conclude(folder, timing=True, admitted=admitted) else 1


def upload(folder: Path, admitted: list[str]) -> int:
    """Send the study to W&B."""
    from dsa.study.publish import publish
    from dsa.study.sync import sync
    from dsa.training.loggers import has_key

    done = sync(folder, admitted=admitted)
    if (folder / VERDICT).exists():
        publish(folder, "auto")
    print(f"{len(done.sent)} runs rebuilt, {len(done.unchanged)} had nothing new")
    if not has_key() and done.sent + done.unchanged:
        places = sorted({run.parent for run in done.sent + done.unchanged}, reverse=True)
        print("no API key: upload them with")
        for place in places:
            print(f"wandb sync {place}/*/wandb-rebuilt/wandb/offline-run-*")
    for run in done.lost:
        print(f"not sent: {run}", file=sys.stderr)
    return 1 if done.lost else 0


def browse(folder: Path, admitted: list[str]) -> int:
    """Open the report in a browser; its path and how to see single runs are said in any case."""
    report, runs = folder / "report.html", sorted(folder.glob("*/wandb*/**/offline-run-*"))
    if runs:
        print(f"one run: wandb leet {runs[-1]}")
    if report.exists():
        print(f"report:  {report.resolve()}")
        if not webbrowser.open(report.resolve().as_uri()):
            print("no browser here: open that file where there is one")
        return 0
    print(f"{folder}: no report.html; python -m dsa.study conclude {folder} writes what the runs say.", file=sys.stderr)
    return 1


if __name__ == "__main__":
    with read_to_the_end():
        sys.exit(main())
