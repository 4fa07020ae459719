import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dsa.data import TextFiles

DOCUMENTS = [f"document {i} says\nsomething" for i in range(60)]


def everything(path, **settings):
    train, validation = TextFiles(str(path), **settings).texts()
    assert train
    assert validation
    assert not set(train) & set(validation)
    return sorted(train + validation)


def write_jsonl(path, column="text", documents=DOCUMENTS):
    path.write_text("".join(json.dumps({"id": i, column: text}) + "\n" for i, text in enumerate(documents)))
    return path


def test_one_files_last_tenth_is_its_validation_part(book):
    text = book.read_text()
    assert TextFiles(str(book)).texts() == ([text[: -round(len(text) / 10)]], [text[-round(len(text) / 10) :]])


def test_jsonl_gives_a_document_per_row(tmp_path):
    assert everything(write_jsonl(tmp_path / "a.jsonl")) == sorted(DOCUMENTS)


def test_parquet_gives_a_document_per_row(tmp_path):
    pq.write_table(pa.table({"body": DOCUMENTS, "n": range(60)}), tmp_path / "a.parquet")
    assert everything(tmp_path / "a.parquet", column="body") == sorted(DOCUMENTS)


def test_jsonl_and_parquet_hold_out_the_same_documents(tmp_path):
    write_jsonl(tmp_path / "a.jsonl")
    pq.write_table(pa.table({"text": DOCUMENTS[::-1]}), tmp_path / "a.parquet")
    one, two = (TextFiles(str(tmp_path / name)).texts() for name in ("a.jsonl", "a.parquet"))
    assert sorted(one.validation) == sorted(two.validation)


def test_a_folder_gives_its_text_files_and_leaves_hidden_and_binary_ones(tmp_path):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    for i in range(8):
        (tmp_path / "deep" / "er" / f"{i}.md").write_text(f"text {i}")
    (tmp_path / ".hidden.txt").write_text("no")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "config").write_text("no")
    (tmp_path / "image.png").write_bytes(b"\x89PNG\0\0")
    write_jsonl(tmp_path / "rows.jsonl")
    assert everything(tmp_path) == sorted([f"text {i}" for i in range(8)] + DOCUMENTS)


def test_a_hidden_file_that_is_named_itself_is_text(tmp_path):
    (tmp_path / ".notes.txt").write_text("some text " * 20)
    assert "".join(everything(tmp_path / ".notes.txt")) == "some text " * 20


def test_a_glob_gives_what_it_matches(tmp_path):
    (tmp_path / "sub").mkdir()
    for i in range(6):
        (tmp_path / f"{i}.txt").write_text(f"text {i}")
        (tmp_path / "sub" / f"{i}.txt").write_text(f"sub {i}")
        (tmp_path / f"{i}.log").write_text("no")
    assert everything(tmp_path / "*.txt") == [f"text {i}" for i in range(6)]
    assert len(everything(tmp_path / "**" / "*.txt")) == 12


def test_the_key_follows_content_names_and_column_but_not_the_place(tmp_path):
    keys = []
    for folder, name, text, column in (
        ("a", "x.txt", "one", "text"),
        ("b", "x.txt", "two", "text"),
        ("c", "y.txt", "one", "text"),
        ("d", "x.txt", "one", "body"),
        ("e", "x.txt", "one", "text"),
    ):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_text(text)
        keys.append(TextFiles(str(tmp_path / folder), column).key())
    assert len(set(keys[:4])) == 4
    assert keys[4] == keys[0]


def test_a_byte_order_mark_is_no_text(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbf" + b"0123456789")
    assert TextFiles(str(tmp_path / "a.txt")).texts() == (["012345678"], ["9"])


@pytest.mark.parametrize("path", [None, ""])
def test_no_path_names_the_key(path):
    with pytest.raises(ValueError, match=r"data.path is not set: .* Give data.path=book.txt"):
        TextFiles(path)


def test_a_missing_path_names_key_and_path(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"data.path = {tmp_path}/none.txt: nothing is there"):
        TextFiles(str(tmp_path / "none.txt"))
    with pytest.raises(FileNotFoundError, match=r"nothing is there"):
        TextFiles(str(tmp_path))


def test_a_binary_file_is_no_text(tmp_path):
    (tmp_path / "a.bin").write_bytes(b"\0\1")
    with pytest.raises(FileNotFoundError, match=r"no text in it"):
        TextFiles(str(tmp_path / "a.bin"))


def test_a_missing_column_names_those_there_are(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", column="body")
    with pytest.raises(ValueError, match=r"data.column = text: data.path = .*a.jsonl has id, body. Give one of these"):
        TextFiles(str(path)).texts()


def test_a_column_of_numbers_is_no_text(tmp_path):
    with pytest.raises(ValueError, match=r"data.column = id: .* holds int there, not text"):
        TextFiles(str(write_jsonl(tmp_path / "a.jsonl")), column="id").texts()


def test_a_broken_file_is_named(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "cut sho')
    with pytest.raises(OSError, match=r"data.path = .*a.jsonl: cannot be read"):
        TextFiles(str(tmp_path / "a.jsonl")).texts()


LATIN = "caf\u00e9 \u00fcber Stra\u00dfe, " * 50


@pytest.mark.parametrize("name", ["book.txt", "rows.jsonl"])
def test_text_in_another_encoding_is_refused_with_file_byte_and_setting(tmp_path, name):
    content = LATIN if name == "book.txt" else json.dumps({"text": LATIN}, ensure_ascii=False)
    (tmp_path / name).write_text(content, encoding="latin-1")
    place = content.index("\u00e9")
    with pytest.raises(ValueError) as refused:
        TextFiles(str(tmp_path)).texts()
    told = str(refused.value)
    assert str(tmp_path / name) in told
    assert f"byte {place} (0xe9)" in told
    assert "data.encoding=latin-1" in told


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16", "utf-8"])
def test_text_is_read_in_the_encoding_that_is_given(tmp_path, encoding):
    (tmp_path / "a.txt").write_text(LATIN, encoding=encoding)
    texts = TextFiles(str(tmp_path / "a.txt"), encoding=encoding).texts()
    assert texts.train[0] + texts.validation[0] == LATIN


def test_rows_are_read_in_the_encoding_that_is_given(tmp_path):
    rows = "".join(json.dumps({"text": f"caf\u00e9 {i}"}, ensure_ascii=False) + "\n" for i in range(60))
    (tmp_path / "a.jsonl").write_text(rows, encoding="latin-1")
    assert everything(tmp_path / "a.jsonl", encoding="latin-1") == sorted(f"caf\u00e9 {i}" for i in range(60))


def test_two_spellings_of_one_encoding_share_the_cached_tokens_and_another_does_not(tmp_path):
    (tmp_path / "a.txt").write_text("plain")
    keys = [TextFiles(str(tmp_path), encoding=name).key() for name in ("utf-8", "UTF8", "latin-1")]
    assert keys[0] == keys[1] != keys[2]
