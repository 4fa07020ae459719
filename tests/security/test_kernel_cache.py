"""The kernels' cache: only whole files of this user's, which nobody else can write, are loaded."""

import os
import shutil
from pathlib import Path

import pytest

from dsa.ops import compiler

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="there is no compiler")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch):
    """The cache's folder, with the sources of one small library."""
    caches = (compiler.library, compiler.cache_folder)
    sources = tmp_path / "kernels"
    sources.mkdir()
    (sources / "answer.cpp").write_text('extern "C" int answer() { return N; }\n')
    monkeypatch.setattr(compiler, "SOURCES", sources)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for cached in caches:
        cached.cache_clear()
    yield tmp_path / "dsa" / "kernels"
    for cached in caches:
        cached.cache_clear()


def answer() -> int:
    """As a new process would get it."""
    compiler.library.cache_clear()
    compiler.cache_folder.cache_clear()
    return compiler.library("answer.cpp", N=42).answer()


def only_file(cache: Path) -> Path:
    (path,) = cache.iterdir()
    return path


def replace(path: Path, content: bytes, mode: int = 0o700) -> int:
    """Another file in its place; its number."""
    other = path.with_suffix(".other")
    other.write_bytes(content)
    other.chmod(mode)
    other.replace(path)
    return path.stat().st_ino


def test_a_whole_file_is_kept_and_nobody_else_may_write_it(cache):
    os.umask(before := os.umask(0))
    try:
        os.umask(0)
        assert answer() == 42
    finally:
        os.umask(before)
    first = only_file(cache).stat()
    assert first.st_mode & 0o077 == cache.stat().st_mode & 0o077 == 0
    assert answer() == 42
    assert only_file(cache).stat().st_ino == first.st_ino


def test_a_truncated_file_is_built_again(cache):
    assert answer() == 42
    path = only_file(cache)
    whole = path.read_bytes()
    half = replace(path, whole[: len(whole) // 2])
    assert answer() == 42
    assert only_file(cache).stat().st_ino != half
    assert only_file(cache).read_bytes() == whole


def test_a_file_that_others_can_write_is_built_again(cache):
    assert answer() == 42
    path = only_file(cache)
    loose = replace(path, path.read_bytes(), 0o777)
    assert answer() == 42
    assert only_file(cache).stat().st_ino != loose
    assert not only_file(cache).stat().st_mode & 0o022


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_another_user_is_built_again(cache):
    assert answer() == 42
    os.chown(only_file(cache), 12345, 12345)
    assert answer() == 42
    assert only_file(cache).stat().st_uid == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_another_user_is_not_used(cache, caplog):
    assert answer() == 42
    path = only_file(cache)
    os.chown(cache, 12345, 12345)
    replace(path, b"theirs")
    assert answer() == 42
    assert path.read_bytes() == b"theirs"
    assert "is another user's" in caplog.text


def test_a_folder_that_others_could_write_is_taken_back(cache):
    cache.mkdir(parents=True)
    cache.chmod(0o777)
    assert answer() == 42
    assert cache.stat().st_mode & 0o077 == 0
