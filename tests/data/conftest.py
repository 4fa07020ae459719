import pytest

from dsa.data import ByteTokenizer, DataModule, RecallSlice, TextFiles, TextSource


@pytest.fixture
def book(tmp_path):
    """A text in which every place is different."""
    path = tmp_path / "book.txt"
    path.write_text("".join(f"Line {number} of a long book. " for number in range(1000)))
    return path


@pytest.fixture
def source(book, tmp_path):
    return TextSource(TextFiles(str(book)), ByteTokenizer(), RecallSlice(3, 16), str(tmp_path / "cache"))


@pytest.fixture
def module(source):
    """A DataModule of the book, with whatever is set otherwise."""

    def build(**settings):
        usual = {"source": source, "seq_len": 32, "batch_size": 8, "eval_batches": 4, "seed": 0}
        return DataModule(**{**usual, **settings})

    return build
