"""Write this repository's findings again.

python findings/write.py                                        from the results that lie beside this script
python findings/write.py outputs/<study> ... --to findings      from run folders; the other studies there stay
"""

import argparse
import sys
from functools import partial
from pathlib import Path

from dsa.analysis.inputs.meta import STUDY
from dsa.analysis.output.replaced import replaced
from paper.claims import claims_page
from paper.evidence import order
from paper.first import first_page
from paper.page import findings_page
from paper.source import folders, load, write_content
from paper.study import write_study

HERE = Path(__file__).parent


def main(arguments: list[str] | None = None) -> int:
    """Write README.md, details.md, claims.md and a folder for each study; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", type=Path, nargs="*", default=[HERE], help="folders of studies, or of findings")
    parser.add_argument("--to", type=Path, default=HERE, help="where to write; default: beside this script")
    given = parser.parse_args(arguments)
    try:
        made = order([load(folder) for folder in folders(given.studies)])
        for name, study in made.items():
            write_study(study, given.to / name)
            print(given.to / name / "README.md")
        rest = [path.parent for path in given.to.glob(f"*/{STUDY}") if path.parent.name not in made]
        studies = order([*(load(folder) for folder in rest), *made.values()])
        pages = {
            "README.md": first_page(studies),
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
