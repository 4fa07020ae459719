"""Building the kernels: many processes, folders that cannot be written, machines without a compiler."""

import logging
import os
import sys
from pathlib import Path

import pytest
from forked import launch

from dsa.ops import compiler, native

needs_compiler = pytest.mark.skipif(native.unavailable() is not None, reason=str(native.unavailable()))
BUILD = """
import torch
from dsa.ops import Recency, Zone, native
chosen = native.select(Recency(), (Zone(None),), torch.full((1, 1, 9), 2))
print(native.unavailable(), chosen.positions[0, 0, 8].tolist())
"""


@pytest.fixture
def fresh(monkeypatch):
    """The compiler module as in a new process."""
    caches = (compiler.library, compiler.compiler, compiler.cache_folder, compiler.version, native.unavailable)
    for cached in caches:
        cached.cache_clear()
    yield monkeypatch
    monkeypatch.undo()
    for cached in caches:
        cached.cache_clear()


@pytest.mark.slow
@needs_compiler
def test_processes_that_start_together_share_one_cache(tmp_path: Path):
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    command = [sys.executable, "-c", BUILD]
    started = [launch(command, environment) for _ in range(4)]
    assert {process.communicate()[0].strip() for process in started} == {"None [7, 8]"}
    assert [path.suffix for path in (tmp_path / "dsa" / "kernels").iterdir()] == [".so"]


@pytest.mark.slow
@needs_compiler
def test_a_cache_that_cannot_be_written_costs_a_line_in_the_log(fresh, tmp_path: Path, caplog):
    (tmp_path / "dsa").write_text("a file where the folder should be")
    fresh.setenv("XDG_CACHE_HOME", str(tmp_path))
    with caplog.at_level(logging.WARNING):
        assert native.unavailable() is None
    assert [record.message.count("cannot be written") for record in caplog.records] == [1]


@pytest.mark.slow
@needs_compiler
def test_a_broken_file_in_the_cache_is_built_again(fresh, tmp_path: Path):
    fresh.setenv("XDG_CACHE_HOME", str(tmp_path))
    compiler.cache_folder()
    name = f"select-3-{compiler.fingerprint((*compiler.flag_sets()[0], '-DSCORER=3'))}.{'0' * 32}.so"
    (tmp_path / "dsa" / "kernels" / name).write_bytes(b"not a library")
    assert native.unavailable() is None


def test_without_a_compiler_one_line_says_so_and_how_to_get_one(fresh, tmp_path: Path):
    fresh.setenv("PATH", str(tmp_path))
    fresh.delenv("CXX", raising=False)
    reason = native.unavailable()
    assert reason is not None
    assert "no C++ compiler found" in reason
    assert "apt-get install g++" in reason
    assert "\n" not in reason


def test_a_compiler_that_fails_is_reported_with_its_first_error(fresh, tmp_path: Path):
    broken = tmp_path / "broken-compiler"
    broken.write_text("#!/bin/sh\necho 'fatal error: no such luck' >&2\nexit 1\n")
    broken.chmod(0o755)
    fresh.setenv("CXX", str(broken))
    fresh.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    reason = native.unavailable()
    assert reason is not None
    assert "fatal error: no such luck" in reason
