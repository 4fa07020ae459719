"""Text out of Hugging Face `datasets`: one string a row, whatever the file format."""

from collections.abc import Iterator
from itertools import islice
from typing import Any


def read_rows(
    dataset: str,
    column: str,
    what: str,
    *,
    split: str = "train",
    streaming: bool = True,
    max_documents: int | None = None,
    max_bytes: int | None = None,
    **options: Any,
) -> Iterator[str]:
    """The column's texts in the dataset's order, empty ones left out.

    Streamed, nothing is written to the `datasets` cache; else the whole split is downloaded there.

    Args:
        dataset: what `datasets.load_dataset` calls path: a hub name, a local folder, a builder such as "json".
        column: the column that holds the text.
        what: how errors name the dataset.
        split: a split of the dataset.
        streaming: read as it comes.
        max_documents, max_bytes: stop before either would be exceeded [rows; UTF-8 bytes].
        options: handed on to `load_dataset`.

    Raises:
        OSError: it cannot be read.
        ValueError: it has no such column of text.
    """
    spent = 0
    for row in islice(_rows(dataset, what, split=split, streaming=streaming, **options), max_documents):
        if column not in row:
            raise ValueError(f"data.column = {column}: {what} has {', '.join(map(str, row))}. Give one of these.")
        text = row[column]
        if not text:
            continue
        if not isinstance(text, str):
            raise ValueError(f"data.column = {column}: {what} holds {type(text).__name__} there, not text.")
        spent += len(text.encode(errors="replace"))
        if max_bytes is not None and spent > max_bytes:
            return
        yield text


def _rows(dataset: str, what: str, **options: Any) -> Iterator[dict[str, Any]]:
    import datasets  # takes a second to import, which runs on other data need not pay

    try:
        yield from datasets.load_dataset(dataset, **options)
    except Exception as error:  # every reader beneath has its own kinds
        raise OSError(f"{what}: cannot be read ({type(error).__name__}: {error}).") from error
