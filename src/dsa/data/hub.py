"""Text from the Hugging Face hub: looked for once, given up at once."""

import os
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dsa.checks import null_or_positive
from dsa.data.files import file_hashes
from dsa.data.hashing import digest
from dsa.data.rows import read_rows
from dsa.data.split import SHARE, Texts, split
from dsa.data.text import Corpus

OFFLINE_FLAGS = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")
PATIENCE = 3.0  # seconds to wait for the hub's first sign of life
LOCAL = "Local text needs no network: data=stdlib, or data=text data.path=<file, folder or glob>."


class HubCorpus(Corpus):
    """A dataset of the Hugging Face hub, or a local folder that `datasets` can load.

    Rows are split by the hash of their text, unless the dataset brings a validation split of its own. Once its
    tokens are cached no network is needed; the cache is keyed by these settings, so pin `revision` (or clear the
    cache) where the dataset changes. The fingerprint follows the content in any case.

    Args:
        name: such as "roneneldan/TinyStories", or a local folder.
        config: the dataset's configuration.
        split: its split to train on.
        validation_split: its split to validate on; None: a tenth of the rows.
        column: the column that holds the text.
        revision: branch, tag or commit.
        streaming: read only as much as is asked for; False: download the whole split to the `datasets` cache.
        lines: rows are consecutive lines of one text, not documents.
        max_documents: at most so many rows; a tenth of it for a validation split.
        max_bytes: at most so many bytes of text; a tenth of it for a validation split.

    Raises:
        ValueError: no name is given, or a number is impossible.
        ConnectionError: from `texts`: there is no way to the hub, or it does not give the dataset.
    """

    @classmethod
    def called(cls, settings: Mapping[str, Any]) -> str | None:
        """The dataset's name without its owner's, with the configuration that was chosen."""
        name, config = settings.get("name"), settings.get("config")
        if not isinstance(name, str) or not name:
            return None
        own = name.rstrip("/").split("/")[-1]
        return own if config is None else f"{own}-{config}"

    def __init__(
        self,
        name: str | None,
        config: str | None = None,
        split: str = "train",
        validation_split: str | None = None,
        column: str = "text",
        revision: str | None = None,
        streaming: bool = True,
        lines: bool = False,
        max_documents: int | None = None,
        max_bytes: int | None = None,
    ) -> None:
        if not name:
            raise ValueError("data.name is not set: data=hub needs a dataset. Give data.name=roneneldan/TinyStories.")
        why = "null reads all; else something must be read"
        self.name, self.config, self.revision = name, config, revision
        self.split, self.validation_split, self.column = split, validation_split, column
        self.streaming, self.lines = streaming, lines
        self.max_documents = null_or_positive(max_documents, "data.max_documents", why)
        self.max_bytes = null_or_positive(max_bytes, "data.max_bytes", why)
        self.description = f"{name}{f'/{config}' if config else ''}"

    def key(self) -> str:
        """Hash of the settings; for a local folder of its content too."""
        content = file_hashes(Path(self.name)) if self._is_local() else None
        return digest(sorted((name, value) for name, value in vars(self).items() if name != "streaming"), content)

    def texts(self) -> Texts:
        """Downloads and splits the documents."""
        if not self._is_local():
            require_hub(self.name, streaming=self.streaming)
        documents = self._documents(self.split, 1.0)
        if self.validation_split is None:
            return split((text, text) for text in documents)
        return Texts(documents, self._documents(self.validation_split, SHARE))

    def _is_local(self) -> bool:
        return Path(self.name).is_dir()

    def _documents(self, part: str, share: float) -> list[str]:
        rows = read_rows(
            self.name,
            self.column,
            f"data.name = {self.name}, split {part}",
            split=part,
            streaming=self.streaming,
            name=self.config,
            revision=self.revision,
            max_documents=self.max_documents and max(1, int(self.max_documents * share)),
            max_bytes=self.max_bytes and max(1, int(self.max_bytes * share)),
        )
        try:
            return ["".join(rows)] if self.lines else list(rows)
        except OSError as error:
            raise ConnectionError(f"{error} {LOCAL}") from error


def require_hub(name: str, streaming: bool) -> None:
    """Returns if the hub answers, or if a downloaded copy may do.

    Raises:
        ConnectionError: within PATIENCE, instead of the many retries of the libraries beneath.
    """
    if any(os.environ.get(flag, "").upper() in ("1", "ON", "YES", "TRUE") for flag in OFFLINE_FLAGS):
        if streaming:
            raise ConnectionError(
                f"data.name = {name}: {' or '.join(OFFLINE_FLAGS)} forbids the network, and streaming needs it. "
                f"Unset it, or read a downloaded copy with data.streaming=false. {LOCAL}"
            )
        return
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    if not _answers(endpoint):
        raise ConnectionError(
            f"data.name = {name}: no connection to {endpoint} (waited up to {PATIENCE:.0f} s). A copy downloaded "
            f"before can be read with data.streaming=false and HF_HUB_OFFLINE=1 in the environment. {LOCAL}"
        )


def _answers(endpoint: str) -> bool:
    """Whether any answer comes in time; in a thread, as looking up the name knows no time limit."""
    heard = threading.Event()

    def ask() -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(endpoint, method="HEAD"), timeout=PATIENCE).close()
        except urllib.error.HTTPError:
            pass  # an answer, if not a friendly one
        except OSError:
            return
        heard.set()

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(PATIENCE)
    return heard.is_set()
