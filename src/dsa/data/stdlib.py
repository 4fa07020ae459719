"""The text that every Python brings along: its own standard library."""

import os
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from dsa.data.hashing import digest_bytes
from dsa.data.split import Texts, split
from dsa.data.text import Corpus

# Installed packages, tests, tables of character codes, and what differs from one build to the next.
SKIPPED = {"site-packages", "dist-packages", "__pycache__", "test", "tests", "idle_test", "encodings"}
BUILT = ("_sysconfigdata", "config-")
SUFFIXES = {".py", ".txt", ".rst", ".md"}


class StdlibCorpus(Corpus):
    """Source and documentation text of the running interpreter's standard library, a document per file.

    About 11 MB on CPython 3.11 (pydoc_data/topics.py alone is 0.75 MB of documentation). Files are taken in the
    order of their names relative to the library, and split by the hash of those.

    Args:
        root: the library's folder; None: the running interpreter's.

    Raises:
        FileNotFoundError: the folder holds no source text (a stripped or frozen Python).
    """

    description = "stdlib"

    def __init__(self, root: str | None = None) -> None:
        self.root = Path(root or sysconfig.get_path("stdlib"))
        self.files = {name: self.root.joinpath(name).read_bytes() for name in sorted(_names(self.root))}
        if not self.files:
            raise FileNotFoundError(
                f"data=stdlib: {self.root} holds no source text. Use data=text data.path=<file, folder or glob>."
            )

    def key(self) -> str:
        """Hash of all names and contents."""
        return digest_bytes(part for name, raw in self.files.items() for part in (name.encode(), raw))

    def texts(self) -> Texts:
        """The files' text, split by file."""
        return split((name, raw.decode("utf-8", errors="replace")) for name, raw in self.files.items())


def _names(root: Path) -> Iterator[str]:
    for folder, inner, files in os.walk(root):
        inner[:] = [name for name in inner if name not in SKIPPED and not name.startswith(BUILT)]
        for name in files:
            path = Path(folder, name)
            if path.suffix in SUFFIXES and not name.startswith(BUILT):
                yield path.relative_to(root).as_posix()
