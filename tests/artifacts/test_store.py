"""An artifact is there whole or not at all; what is damaged is named and made again."""

import json
import logging
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import QUIET, SMALL

from dsa import compose
from dsa.artifacts.files import RESULT
from dsa.artifacts.results import RunResult, read_result
from dsa.artifacts.store import LAST, PLACES, RECORD, WEIGHTS, Named, Store
from dsa.build import build_data
from dsa.graph import graph_of
from dsa.judging.checkpoints import read_weights, save_weights
from dsa.training.base import make_base
from dsa.training.dashboard import Dashboard
from dsa.training.making import made

RUN = [*SMALL, *QUIET, "seq_len=32", "dtype=fp32", "recipe=dense", "recipe.dense.steps=2"]
NEED = Named("base", "dense-L32-s0-0123abcd", "0123abcd", "code-1")
JUDGEMENT = Named("judgement", "-4567cdef", "4567cdef", "code-1")


class Killed(SystemExit):
    """Stands for a kill."""


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "outputs")


@pytest.fixture
def wanted(tmp_path):
    """A spec and what names its base."""
    spec = compose([*RUN, f"output_dir={tmp_path / 'outputs'}"])
    return spec, graph_of(spec, "corpus").base


def maker(value, calls):
    """Fills a folder with weights that tell which call made them, and leaves a checkpoint as training does."""

    def make(folder, resumed):
        calls.append(resumed)
        (folder / LAST).write_text("a checkpoint")
        save_weights({"x": torch.full((3,), float(value))}, folder)
        return {"value": value}

    return make


def begun(store, need=NEED, text="weights"):
    """A folder in which an artifact was made, not yet published."""
    partial = store.partial(need)
    store.begin(partial, need.code)
    (partial / WEIGHTS).write_text(text)
    return partial


def test_nothing_is_found_before_it_is_published_and_everything_after(store):
    partial = begun(store)
    assert store.find(NEED) is None
    made = store.publish(partial, NEED, {"identity": 1})
    found = store.find(NEED)
    assert found == made and found.record["identity"] == 1 and found.name == NEED.name
    assert not partial.exists()
    assert os.listdir(store.root / PLACES["base"]) == [NEED.name]


@pytest.mark.parametrize("rename", [1, 2, 3], ids=["of the record", "of the old one", "of the new one"])
def test_publishing_that_is_killed_leaves_the_old_the_new_or_none_and_never_a_mixture(rename, store, monkeypatch):
    store.publish(begun(store, text="old"), NEED, {"value": "old"})
    partial, calls, move = begun(store, text="new"), [], os.replace

    def dying(source, target):
        calls.append(source)
        if len(calls) == rename:
            raise Killed
        move(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", dying)
        with pytest.raises(Killed):
            store.publish(partial, NEED, {"value": "new"})
    found = store.find(NEED)
    assert (found is None) == (rename == 3)
    if found is not None:
        assert found.record["value"] == (found.folder / WEIGHTS).read_text() == "old"
    assert store.publish(partial, NEED, {"value": "new"}).record["value"] == "new"
    found = store.find(NEED)
    assert found.record["value"] == (found.folder / WEIGHTS).read_text() == "new"
    assert os.listdir(store.root / PLACES["base"]) == [NEED.name]


def test_another_spelling_of_the_same_artifact_finds_its_folder(store):
    folder = store.publish(begun(store), NEED, {}).folder
    other = replace(NEED, name="dense-custom-L32-s0-0123abcd")
    assert store.find(other).folder == folder
    assert store.find(replace(NEED, name="dense-L32-s0-89efabcd", hash="89efabcd")) is None


def test_what_other_code_made_counts_only_if_stale_is_kept(store):
    store.publish(begun(store), NEED, {})
    newer = replace(NEED, code="code-2")
    assert store.find(newer) is None
    assert Store(store.root, "keep").find(newer) is not None


def test_what_other_code_began_is_not_continued(store):
    partial = begun(store)
    assert store.begin(partial, NEED.code)
    assert (partial / WEIGHTS).exists()
    assert not store.begin(partial, "code-2")
    assert os.listdir(partial) == ["code.txt"]
    begun(store)
    assert not store.begin(partial, NEED.code, resume=False)
    assert not (partial / WEIGHTS).exists()


@pytest.mark.parametrize("text", ["", '{"code": "code-1", "sch', "[1, 2]", "\x00" * 40])
def test_a_damaged_record_is_named_set_aside_and_counts_as_not_there(text, store, caplog):
    folder = store.publish(begun(store), NEED, {}).folder
    (folder / RECORD).write_text(text)
    with caplog.at_level(logging.WARNING, logger="dsa"):
        assert store.find(NEED) is None
        assert store.find(NEED) is None
    assert caplog.text.count(f"{folder / RECORD} cannot be read") == 1
    assert (folder / f"{RECORD}.damaged").read_text() == text


def test_a_damaged_judgement_is_named_set_aside_and_counts_as_not_there(store, caplog):
    store.keep_judgement(JUDGEMENT, {"val": {"loss": 1.0}})
    assert store.judgement(JUDGEMENT)["val"] == {"loss": 1.0}
    assert store.judgement(replace(JUDGEMENT, code="code-2")) is None
    path = store.judgement_file(JUDGEMENT)
    path.write_text(path.read_text()[:-9])
    with caplog.at_level(logging.WARNING, logger="dsa"):
        assert store.judgement(JUDGEMENT) is None
    assert f"{path} cannot be read" in caplog.text
    assert path.with_name(f"{path.name}.damaged").exists() and not path.exists()
    store.keep_judgement(JUDGEMENT, {"val": {"loss": 2.0}})
    assert store.judgement(JUDGEMENT)["val"] == {"loss": 2.0}


def test_a_damaged_result_is_named_set_aside_and_counts_as_not_there(tmp_path, caplog):
    RunResult("id", "finished", "study", {}, "tiny", "mqar", "judge", 32, 0).write(tmp_path)
    assert read_result(tmp_path).run_id == "id"
    (tmp_path / RESULT).write_text((tmp_path / RESULT).read_text()[:50])
    with caplog.at_level(logging.WARNING, logger="dsa"):
        assert read_result(tmp_path) is None
    assert f"{tmp_path / RESULT} cannot be read" in caplog.text
    assert (tmp_path / f"{RESULT}.damaged").exists()


def cut(path: Path):
    path.write_bytes(path.read_bytes()[:-100])


def flip(path: Path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGE = {"cut": cut, "flipped": flip, "missing": Path.unlink}


@pytest.mark.slow
@pytest.mark.parametrize("how", DAMAGE)
def test_damaged_weights_are_told_once_and_made_again(how, store, wanted, caplog):
    spec, need = wanted
    calls = []
    folder = made(store, need, spec, maker(1, calls)).folder
    DAMAGE[how](folder / WEIGHTS)
    with caplog.at_level(logging.WARNING, logger="dsa"):
        assert store.find(need) is None
        again = made(store, need, spec, maker(1, calls))
    assert calls == [False, False]
    assert caplog.text.count(str(folder / WEIGHTS)) == 1
    assert ("missing" if how == "missing" else "damaged") in caplog.text and "made again" in caplog.text
    assert read_weights(again.folder)["x"].tolist() == [1.0, 1.0, 1.0]
    assert store.find(need) == again


@pytest.mark.slow
def test_what_is_there_is_made_once_and_replaced_if_asked(store, wanted):
    spec, need = wanted
    calls = []
    assert made(store, need, spec, maker(1, calls)).record["value"] == 1
    assert made(store, need, spec, maker(2, calls)).record["value"] == 1
    assert len(calls) == 1
    replaced = made(store, need, spec, maker(2, calls), again=True)
    assert replaced.record["value"] == 2 and read_weights(replaced.folder)["x"][0] == 2
    assert len(calls) == 2
    assert os.listdir(store.root / PLACES["base"]) == [need.name]
    assert replaced.record["identity"] == json.loads(json.dumps(need.identity))


def test_a_kill_before_it_is_published_keeps_what_was_trained(store, wanted, monkeypatch):
    spec, need = wanted
    calls = []

    def dying(self, *given):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Store, "publish", dying)
        with pytest.raises(Killed):
            made(store, need, spec, maker(1, calls))
    assert (store.partial(need) / LAST).exists(), "its last checkpoint, from which no step is trained again"
    folder = made(store, need, spec, maker(1, calls)).folder
    assert calls == [False, True]
    assert not (folder / LAST).exists()


@pytest.mark.slow
def test_a_base_whose_weights_are_damaged_is_trained_again_to_the_same(tmp_path, caplog):
    spec = compose([*RUN, f"output_dir={tmp_path}"])
    data, store = build_data(spec), Store(tmp_path)
    need = graph_of(spec, data.fingerprint).base
    board = Dashboard(spec, "base", "dense", "base", silent=True)
    folder = make_base(store, spec, need, data, board).folder
    shutil.copytree(folder, tmp_path / "expected")
    flip(folder / WEIGHTS)
    with caplog.at_level(logging.WARNING, logger="dsa"):
        make_base(store, spec, need, data, board)
    assert caplog.text.count("made again") == 1
    expected = read_weights(tmp_path / "expected")
    assert all(torch.equal(weight, expected[name]) for name, weight in read_weights(folder).items())
