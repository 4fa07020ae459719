"""The user's own text: a file, a folder or a glob."""

import codecs
import glob
import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dsa.data.hashing import digest, digest_bytes
from dsa.data.rows import read_rows
from dsa.data.split import Texts, split
from dsa.data.text import Corpus

TABLES = {".jsonl": "json", ".ndjson": "json", ".parquet": "parquet"}  # suffix -> builder in `datasets`
SNIFFED = 8192  # bytes looked at to tell text from binary, as git does


class TextFiles(Corpus):
    """Text under `path`. In a folder hidden files and binary ones (a zero byte in the first 8 KiB) are left out.

    A plain file is one document, split by the hash of its name relative to the folder; each row of a .jsonl or
    .parquet file is one, split by the hash of its text. A single plain file gives its last tenth for validation.

    Args:
        path: a file, a folder (searched recursively) or a glob (`**` searches recursively).
        column: where the text stands in .jsonl and .parquet files.
        encoding: of plain text and .jsonl, by the name that Python has for it.

    Raises:
        ValueError: no path is given, the encoding is unknown, or (from `texts`) a file is in another one.
        FileNotFoundError: nothing is there, or nothing that is text.
    """

    @classmethod
    def called(cls, settings: Mapping[str, Any]) -> str | None:
        """The name of the file without its ending, of the folder, or of the folder that a glob searches."""
        path = settings.get("path")
        if not isinstance(path, str) or not path:
            return None
        fixed = Path(os.path.abspath(Path(path).expanduser()))
        while glob.has_magic(str(fixed)):
            fixed = fixed.parent
        return (fixed.name if os.path.isdir(fixed) else fixed.stem) or None

    def __init__(self, path: str | None, column: str = "text", encoding: str = "utf-8") -> None:
        if not path:
            raise ValueError(
                "data.path is not set: data=text needs a file, a folder or a glob. Give data.path=book.txt."
            )
        self.path = str(path)
        self.column, self.encoding = column, known(encoding)
        self.files = _find(self.path, zeros="a".encode(encoding).count(0) > 0)
        self.description = Path(self.path).name or self.path

    def key(self) -> str:
        """Hash of the settings and of all relative names and contents."""
        parts = [
            self.column,
            self.encoding,
            *(part for name, path in self.files.items() for part in (name, _file_hash(path))),
        ]
        return digest(parts)

    def texts(self) -> Texts:
        """The documents, split."""
        return split(self._documents())

    def _documents(self) -> Iterator[tuple[str, str]]:
        for name, path in self.files.items():
            builder = TABLES.get(path.suffix.lower())
            if builder is None:
                yield name, self._decoded(path)
                continue
            options: dict[str, Any] = {"encoding": self.encoding} if builder == "json" else {}
            if options:
                self._decoded(path)  # `datasets` would not say where it is in another encoding
            rows = read_rows(builder, self.column, f"data.path = {path}", data_files=[str(path)], **options)
            yield from ((text, text) for text in rows)

    def _decoded(self, path: Path) -> str:
        """The text in a file, without a byte order mark.

        Raises:
            ValueError: it is in another encoding.
        """
        raw = path.read_bytes()
        try:
            return raw.decode(self.encoding).removeprefix("\ufeff")
        except UnicodeError as error:
            place = f"byte {error.start} (0x{raw[error.start]:02x})" if isinstance(error, UnicodeDecodeError) else "it"
            raise ValueError(
                f"data.encoding = {self.encoding}: {path} is in another encoding, {place} cannot be read. Give its "
                "own, as data.encoding=latin-1 or data.encoding=cp1252."
            ) from error


def known(encoding: str) -> str:
    """The encoding by the one name that Python has for all its spellings.

    Raises:
        ValueError: there is no such encoding of text.
    """
    try:
        "a".encode(encoding)
        return codecs.lookup(encoding).name
    except (LookupError, UnicodeError, ValueError) as error:
        raise ValueError(
            f"data.encoding = {encoding}: no such encoding of text. Give utf-8, latin-1, cp1252, utf-16 or another "
            "that Python knows."
        ) from error


def file_hashes(folder: Path) -> str:
    """Hash of all files' names and contents under a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return digest_bytes(part.encode() for path in files for part in (str(path.relative_to(folder)), _file_hash(path)))


def _find(path: str, zeros: bool = False) -> dict[str, Path]:
    """Relative name -> file, in the order of the names.

    Args:
        zeros: the text's encoding has zero bytes, which then do not make a file binary.
    """
    given = Path(path).expanduser()
    if given.is_file():
        found, base = [given], given.parent
    elif given.is_dir():
        found, base = [p for p in given.rglob("*") if p.is_file()], given
    else:
        found = [Path(p) for p in glob.glob(str(given), recursive=True) if Path(p).is_file()]
        base = Path(os.path.commonpath([p.parent for p in found])) if found else given
    if not found:
        raise FileNotFoundError(
            f"data.path = {path}: nothing is there (seen from {Path.cwd()}). Give a file, a folder or a glob."
        )
    names = {p.relative_to(base).as_posix(): p for p in found}
    named = given.is_file()
    files = {n: p for n, p in sorted(names.items()) if (named or not _hidden(n)) and (zeros or _is_text(p))}
    if not files:
        raise FileNotFoundError(
            f"data.path = {path}: no text in it (hidden and binary files do not count). "
            "Give plain text, .jsonl or .parquet."
        )
    return files


def _hidden(name: str) -> bool:
    return any(part.startswith(".") for part in Path(name).parts)


def _is_text(path: Path) -> bool:
    if path.suffix.lower() in TABLES:
        return True
    with path.open("rb") as file:
        return b"\0" not in file.read(SNIFFED)


def _file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()
