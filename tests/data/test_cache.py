import json
import logging
import sys

import numpy as np
import pytest
from forked import launch

from dsa.data.cache import Tokens, cached, content_hash

TRAIN, VALIDATION = np.arange(1000, dtype=np.uint16), np.arange(100, dtype=np.uint16)
BUILT = Tokens(TRAIN, VALIDATION, "state", {"train_tokens": 1000}, content_hash(TRAIN, VALIDATION))


@pytest.fixture
def builds():
    """A builder that counts its calls."""

    def build():
        build.calls += 1
        return BUILT

    build.calls = 0
    return build


def same(tokens):
    return (
        (tokens.train == TRAIN).all()
        and (tokens.validation == VALIDATION).all()
        and (tokens.tokenizer, tokens.counts, tokens.content) == BUILT[2:]
    )


def cut_data(data, sidecar):
    data.write_bytes(data.read_bytes()[:-7])


def flip_a_byte(data, sidecar):
    raw = bytearray(data.read_bytes())
    raw[-1] ^= 1
    data.write_bytes(raw)


def empty_data(data, sidecar):
    data.write_bytes(b"")


def cut_sidecar(data, sidecar):
    sidecar.write_bytes(sidecar.read_bytes()[:-7])


def foreign_sidecar(data, sidecar):
    sidecar.write_text(json.dumps(["something", "else"]))


def move_the_split(data, sidecar):
    sidecar.write_text(sidecar.read_text().replace('"train_tokens": 1000', '"train_tokens": 999', 1))


def lose_sidecar(data, sidecar):
    sidecar.unlink()


def lose_data(data, sidecar):
    data.unlink()


@pytest.mark.parametrize(
    "damage",
    [cut_data, flip_a_byte, empty_data, cut_sidecar, foreign_sidecar, move_the_split, lose_sidecar, lose_data],
)
def test_a_damaged_cache_is_noticed_and_made_anew(tmp_path, builds, damage):
    assert same(cached(tmp_path, "key", builds))
    damage(tmp_path / "key.npy", tmp_path / "key.json")
    assert same(cached(tmp_path, "key", builds))
    assert builds.calls == 2
    assert same(cached(tmp_path, "key", builds))
    assert builds.calls == 2


def test_what_is_whole_is_not_made_anew(tmp_path, builds):
    for _ in range(3):
        assert same(cached(tmp_path, "key", builds))
    assert builds.calls == 1


def test_nothing_is_left_beside_the_files_and_the_lock(tmp_path, builds):
    (tmp_path / ".key.npy.123-456").write_bytes(b"left by a killed run")
    cached(tmp_path, "key", builds)
    assert {path.name for path in tmp_path.iterdir()} == {"key.npy", "key.json", "key.lock"}


def test_where_nothing_can_be_written_it_works_uncached_and_says_so(tmp_path, builds, caplog):
    (tmp_path / "file").touch()
    with caplog.at_level(logging.WARNING, "dsa.data"):
        assert same(cached(tmp_path / "file" / "cache", "key", builds))
    (line,) = caplog.messages
    assert line.startswith(f"cache_dir = {tmp_path}/file/cache cannot be written")


def test_a_disk_that_fills_up_leaves_no_half_and_no_error(tmp_path, builds, caplog, monkeypatch):
    def full(file, array):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(np, "save", full)
        assert same(cached(tmp_path, "key", builds))
    assert "No space left" in caplog.text
    assert not (tmp_path / "key.npy").exists()
    assert same(cached(tmp_path, "key", builds))
    assert builds.calls == 2


START = """
import sys, time
from pathlib import Path
import numpy as np
from dsa.data.cache import Tokens, cached, content_hash

folder = Path(sys.argv[1])

def build():
    with (folder / "builds").open("a") as file:
        file.write("built\\n")
    time.sleep(1.0)
    train, validation = np.arange(1000, dtype=np.uint16), np.arange(100, dtype=np.uint16)
    return Tokens(train, validation, "state", {}, content_hash(train, validation))

(folder / f"ready{sys.argv[2]}").touch()
while len(list(folder.glob("ready*"))) < 2:
    time.sleep(0.01)
print(cached(folder, "key", build).content)
"""


@pytest.mark.slow
def test_two_processes_that_start_together_build_once_and_read_the_same(tmp_path):
    started = [launch([sys.executable, "-c", START, str(tmp_path), str(i)]) for i in range(2)]
    contents = [process.communicate(timeout=120)[0].strip() for process in started]
    assert contents == [BUILT.content] * 2
    assert (tmp_path / "builds").read_text() == "built\n"
