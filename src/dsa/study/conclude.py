"""The end of a study, from its folder alone: conditions timed, everything analysed and shown."""

import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from rich.markup import escape

from dsa.analysis.judgement.analysis import Analysis, analyse_folder
from dsa.analysis.output.files import write
from dsa.study.messages import console
from dsa.study.publish import publish
from dsa.study.timing import time_study

LOG = "analysis.log"


def conclude(folder: Path, timing: bool, admitted: Sequence[str] = ()) -> bool:
    """Time and analyse whatever has finished; False if that failed, which says nothing about the runs.

    Args:
        timing: whether to time the conditions before.
        admitted: packages of the user's own whose classes the runs' configurations may name.
    """
    try:
        if timing:
            time_study(folder, admitted=admitted)
        analysis = analyse_folder(folder)
        show_verdict(analysis, write(analysis, folder))
        publish(folder)
    except Exception as error:  # the runs are finished and stay so, whatever is wrong here
        told = f"error: the analysis of {folder} failed, its runs are not touched ({type(error).__name__}: {error})"
        print(f"{told}; again: python -m dsa.analysis {folder}", file=sys.stderr)
        with suppress(OSError):  # a full disk has no place for it either
            (folder / LOG).write_text(traceback.format_exc())
        return False
    return True


def show_verdict(analysis: Analysis, paths: list[Path]) -> None:
    """What the study says, in a few sentences, and where the rest is."""
    out = console()
    out.print(f"[bold]{escape(analysis.prepared.meta.name)}: {analysis.answer}[/]. {escape(analysis.sentence)}")
    for best in analysis.best:
        out.print(f"  {escape(best.sentence)}")
    reports = [path for path in paths if path.suffix == ".html"]
    for path in reports or paths[:1]:
        out.print(str(path), style="bold", markup=False)
