"""Pages that were written by hand: a folder with a README.md and without a study."""

from pathlib import Path
from typing import NamedTuple

from dsa.artifacts.files import STUDY


class Page(NamedTuple):
    """A page's folder, its title and its first paragraph."""

    name: str
    title: str
    answer: str

    @property
    def line(self) -> str:
        """In a list."""
        return f"- [{self.name}]({self.name}/README.md). {self.title} {self.answer}"


def pages(folder: Path) -> list[Page]:
    """The pages in folders right inside of one."""
    found = [path for path in sorted(folder.glob("*/README.md")) if not (path.parent / STUDY).exists()]
    return [page(path) for path in found]


def page(path: Path) -> Page:
    """A README.md that begins with a title and a paragraph.

    Raises:
        ValueError: it does not.
    """
    title, _, rest = path.read_text().partition("\n\n")
    if not title.startswith("# ") or not rest:
        raise ValueError(f"{path}: begin with a title, '# ' and a question, and a paragraph that answers it.")
    return Page(path.parent.name, title.removeprefix("# "), " ".join(rest.split("\n\n")[0].split()))
