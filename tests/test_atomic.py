"""Files are replaced whole, on disk before they are seen, or stay as they were."""

import json
import os

import pytest

from dsa.artifacts.atomic import remove_unfinished, replacing, write_json, write_text


def test_a_file_is_flushed_to_disk_before_it_takes_its_place(tmp_path, monkeypatch):
    events = []
    flush, rename = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda number: (events.append(os.fstat(number).st_size), flush(number)))
    monkeypatch.setattr(os, "replace", lambda a, b: (events.append(str(b)), rename(a, b)))
    write_text(tmp_path / "note", "whole")
    assert events == [5, str(tmp_path / "note")]
    assert (tmp_path / "note").read_text() == "whole"
    assert os.listdir(tmp_path) == ["note"]


def fail(path):
    path.write_text("half")
    raise OSError("the disk is full")


def test_a_writer_that_fails_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "note"
    write_json(path, {"a": 1})
    with pytest.raises(OSError, match="disk is full"), replacing(path) as temporary:
        fail(temporary)
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, float("nan"), strict=True)
    assert json.loads(path.read_text()) == {"a": 1}
    assert os.listdir(tmp_path) == ["note"]


def test_what_killed_writers_left_of_a_file_is_removed_and_nothing_else(tmp_path):
    for name in (".note.12-34", ".other.12-34", "note"):
        (tmp_path / name).touch()
    remove_unfinished(tmp_path / "note")
    assert sorted(os.listdir(tmp_path)) == [".other.12-34", "note"]
