"""Look after a study: python -m dsa.study status|time|conclude|sync|browse outputs/<study>"""

import argparse
import sys
import webbrowser
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.table import Table

from dsa.study.claim import CLAIM, read
from dsa.study.queue import QUEUED
from dsa.study.store import packages_named, planned, state
from dsa.targets import HOW, TargetRefused

LOOK_AT_CODE = ("status", "time", "conclude")
SHOWN = ("done", "running", "queued", "failed", "stale", "interrupted", "missing")


def main(arguments: list[str] | None = None) -> int:
    """The command line; its exit status."""
    parser = argparse.ArgumentParser(prog="python -m dsa.study", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("status", "how many runs are done, running, queued, failed, stale"),
        ("time", "time its conditions alone and in turns, on this machine; trains nothing"),
        ("conclude", "link the runs it shares, time its conditions, analyse whatever has finished"),
        ("sync", "upload the study to W&B, each run rebuilt from its files"),
        ("browse", "open the study's report, or its runs with `wandb leet`"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("folder", type=Path, help="outputs/<study>")
        if name in LOOK_AT_CODE:
            what = "of your own, whose classes the runs may name; the folder cannot admit it"
            command.add_argument("--allow-target", action="append", default=[], metavar="PACKAGE", help=what)
    given = parser.parse_args(arguments)
    try:
        planned(given.folder)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if given.command not in LOOK_AT_CODE:
        return {"sync": upload, "browse": browse}[given.command](given.folder)
    try:
        return {"status": status, "time": again, "conclude": end}[given.command](given.folder, given.allow_target)
    except TargetRefused as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def status(folder: Path, allow_targets: list[str]) -> int:
    """Runs of each condition by state; where those under way are, and which packages were not looked at."""
    rows: dict[str, Counter[str]] = {}
    active: list[str] = []
    seen: set[tuple[str, str]] = set()
    foreign: set[str] = set()
    for run in planned(folder)["runs"]:
        counts = rows.setdefault("dense base" if run["role"] == "base" else run["label"], Counter())
        if run["run_id"] is None:
            counts["not applicable"] += 1
            continue
        place = folder.parent / run["study"] / run["run_id"]
        now = state(place, allow_targets=allow_targets)
        counts[now] += 1
        if now == "stale":
            foreign |= set(packages_named(place)) - set(allow_targets)
        if (run["study"], run["run_id"]) not in seen and now in ("running", "queued"):
            claim, note = read(place / CLAIM), read(place / QUEUED)
            who = f"{claim['host']} process {claim['pid']}" if claim else f"{note['cluster']} job {note['job_id']}"
            active.append(f"{now}: {run['run_id']} ({who})")
        seen.add((run["study"], run["run_id"]))
    columns = [name for name in (*SHOWN, "not applicable") if any(counts[name] for counts in rows.values())]
    table = Table("condition", *columns)
    for label, counts in rows.items():
        table.add_row(label, *(str(counts[name] or "") for name in columns))
    console = wide_console()
    console.print(table)
    for line in active:
        console.print(line)
    for package in sorted(foreign):
        console.print(
            f"stale may be wrong: runs use {package}, which was not looked at. {HOW.format(package)}", markup=False
        )
    return 0


def wide_console() -> Console:
    """The terminal; where the output goes to a file, wide enough to cut nothing."""
    return Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 160)


def again(folder: Path, allow_targets: list[str]) -> int:
    """Time the conditions anew."""
    from dsa.study.timing import FILE, time_study

    time_study(folder, again=True, allow_targets=allow_targets)
    for length, timed in read(folder / FILE).items():
        table = Table("condition", "step, ms", "forward, ms", title=f"length {length}", title_justify="left")
        for label, times in timed["times"].items():
            table.add_row(label, f"{times['step_ms']:.1f}", f"{times['infer_ms']:.1f}")
        wide_console().print(table)
        if timed["contended"]:
            print(f"contended: others used {100 * timed['others']:.0f} % of the processors meanwhile")
    return 0


def end(folder: Path, allow_targets: list[str]) -> int:
    """What a sweep does when its runs are over."""
    from dsa.study.conclude import conclude

    return 0 if conclude(folder, timing=True, allow_targets=allow_targets) else 1


def upload(folder: Path) -> int:
    """Send the study to W&B."""
    from dsa.analysis.files import VERDICT
    from dsa.study.publish import publish
    from dsa.study.sync import sync
    from dsa.training.mirrors import has_key

    done = sync(folder)
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


def browse(folder: Path) -> int:
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
    sys.exit(main())
