"""python -m dsa.analysis findings outputs/<study> ... --to docs/findings: what several studies say together."""

import argparse
import sys
from functools import partial
from pathlib import Path

from dsa.analysis.files import replaced
from dsa.analysis.findings.claims import claims_page
from dsa.analysis.findings.evidence import order
from dsa.analysis.findings.page import findings_page
from dsa.analysis.findings.source import folders, load
from dsa.analysis.findings.study import write_study


def write_text(text: str, path: Path) -> None:
    path.write_text(text)


def main(arguments: list[str] | None = None) -> int:
    """Write README.md, claims.md and a folder for each study; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m dsa.analysis findings", description=__doc__)
    parser.add_argument("studies", type=Path, nargs="+", help="folders of studies, or of compact results")
    parser.add_argument("--to", type=Path, default=Path("docs/findings"), help="default: docs/findings")
    given = parser.parse_args(arguments)
    try:
        studies = order([load(folder) for folder in folders(given.studies)])
        for name, study in studies.items():
            write_study(study, given.to / name)
            print(given.to / name / "README.md")
        pages = {"README.md": findings_page(studies), "claims.md": claims_page(studies)}
        for name, text in pages.items():
            print(replaced(given.to / name, partial(write_text, text)))
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0
