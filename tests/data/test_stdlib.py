import time

import pytest

from dsa.data import StdlibCorpus


def test_it_is_about_eleven_megabytes_of_source_and_documentation():
    train, validation = StdlibCorpus().texts()
    size = sum(map(len, train + validation))
    assert 8e6 < size < 14e6
    assert 0.03 < sum(map(len, validation)) / size < 0.15


def test_installed_packages_tests_and_built_files_are_left_out():
    names = StdlibCorpus().files
    assert "pydoc_data/topics.py" in names
    assert "json/decoder.py" in names
    assert not [n for n in names if "site-packages" in n or "/test/" in n or "_sysconfigdata" in n]
    assert list(names) == sorted(names)


def test_the_split_is_by_file_and_stable(tmp_path):
    for i in range(60):
        (tmp_path / f"module_{i}.py").write_text(f"text {i}")
    before = StdlibCorpus(str(tmp_path)).texts()
    (tmp_path / "added.py").write_text("text 60")
    after = StdlibCorpus(str(tmp_path)).texts()
    assert not set(after.train) & set(after.validation)
    assert set(before.train) <= set(after.train)
    assert set(before.validation) <= set(after.validation)


def test_the_key_follows_names_and_content(tmp_path):
    file = tmp_path / "a.py"
    file.write_text("one")
    first = StdlibCorpus(str(tmp_path)).key()
    assert StdlibCorpus(str(tmp_path)).key() == first
    file.write_text("two")
    second = StdlibCorpus(str(tmp_path)).key()
    file.rename(tmp_path / "b.py")
    assert len({first, second, StdlibCorpus(str(tmp_path)).key()}) == 3


def test_the_key_is_cheap():
    start = time.perf_counter()
    StdlibCorpus().key()
    assert time.perf_counter() - start < 1.5  # 0.1 s on an idle machine


def test_bytes_that_are_no_utf8_are_replaced(tmp_path):
    (tmp_path / "latin.py").write_bytes(b"caf\xe9" * 5)
    train, validation = StdlibCorpus(str(tmp_path)).texts()
    assert "".join(train + validation) == "caf�" * 5


def test_a_python_without_sources_names_the_alternative(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"data=text data.path="):
        StdlibCorpus(str(tmp_path))
