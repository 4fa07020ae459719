"""Write this repository's findings again.

python findings/write.py                                        from the results that lie beside this script
python findings/write.py outputs/<study> ... --to findings      from run folders; what else lies there stays

A study may be run in parts, a few lengths or seeds at a time: what lies there of others stays with it.
A folder there with a README.md and no study is a page of its own: the first page leads to it, nothing changes it.
"""

import argparse
import sys
from functools import partial
from pathlib import Path

from dsa.analysis.inputs.meta import read_meta
from dsa.analysis.output.replaced import replaced
from dsa.artifacts.files import STUDY
from paper.by_hand import pages as pages_by_hand
from paper.claims import claims_page
from paper.evidence import order
from paper.first import first_page, pretrained_page
from paper.page import findings_page
from paper.source import folders, load_all, write_content
from paper.study import write_study

HERE = Path(__file__).parent


def main(arguments: list[str] | None = None) -> int:
    """Write README.md, pretrained.md, details.md, claims.md and a folder for each study; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", type=Path, nargs="*", default=[HERE], help="folders of studies, or of findings")
    parser.add_argument("--to", type=Path, default=HERE, help="where to write; default: beside this script")
    given = parser.parse_args(arguments)
    try:
        asked = folders(given.studies)
        earlier = [path.parent for path in given.to.glob(f"*/{STUDY}") if path.parent not in asked]
        studies = order(load_all([*earlier, *asked]))
        for name in dict.fromkeys(read_meta(folder).name for folder in asked):
            write_study(studies[name], given.to / name)
            print(given.to / name / "README.md")
        pages = {
            "README.md": first_page(studies, pages_by_hand(given.to)),
            "pretrained.md": pretrained_page(studies),
            "details.md": findings_page(studies),
            "claims.md": claims_page(studies),
        }
        for name, text in pages.items():
            print(replaced(given.to / name, partial(write_content, text)))
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
