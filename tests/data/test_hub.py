import json
import socket
import threading
import time

import pytest

from dsa.data import HubCorpus
from dsa.data.hub import require_hub


@pytest.fixture
def dataset(tmp_path):
    """A local folder with a training and a validation split, as the hub serves them."""
    folder = tmp_path / "dataset"
    folder.mkdir()
    for split, count in (("train", 50), ("validation", 20)):
        rows = (json.dumps({"text": f"{split} {i:02}\n"}) + "\n" for i in range(count))
        (folder / f"{split}.jsonl").write_text("".join(rows))
    return str(folder)


@pytest.fixture
def silent(monkeypatch):
    """A hub that takes the call and never speaks: worse than one that is not there."""
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("HF_DATASETS_OFFLINE", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        yield


def test_a_datasets_own_validation_split_is_taken(dataset):
    train, validation = HubCorpus(dataset, validation_split="validation").texts()
    assert train == [f"train {i:02}\n" for i in range(50)]
    assert validation == [f"validation {i:02}\n" for i in range(20)]


def test_without_one_rows_are_split_by_their_hash(dataset):
    train, validation = HubCorpus(dataset).texts()
    assert sorted(train + validation) == [f"train {i:02}\n" for i in range(50)]
    assert validation


def test_downloaded_is_the_same_as_streamed(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "hf"))
    downloaded = HubCorpus(dataset, streaming=False, validation_split="validation")
    streamed = HubCorpus(dataset, streaming=True, validation_split="validation")
    assert downloaded.texts() == streamed.texts()
    assert downloaded.key() == streamed.key()


def test_it_stops_at_the_limits(dataset):
    assert len(HubCorpus(dataset, validation_split="validation", max_documents=20).texts().train) == 20
    assert len(HubCorpus(dataset, validation_split="validation", max_documents=20).texts().validation) == 2
    train, validation = HubCorpus(dataset, validation_split="validation", max_bytes=135).texts()
    assert sum(map(len, train)) == 135 - 135 % 9
    assert validation == ["validation 00\n"][: len(validation)]


def test_lines_are_one_text(dataset):
    train, validation = HubCorpus(dataset, validation_split="validation", lines=True).texts()
    assert train == ["".join(f"train {i:02}\n" for i in range(50))]
    assert len(validation) == 1


def test_the_key_follows_the_settings_and_a_folders_content(dataset):
    keys = {
        HubCorpus(dataset).key(),
        HubCorpus(dataset, validation_split="validation").key(),
        HubCorpus(dataset, max_bytes=100).key(),
        HubCorpus(dataset, lines=True).key(),
        HubCorpus("owner/name").key(),
        HubCorpus("owner/name", revision="abc").key(),
    }
    before = HubCorpus(dataset).key()
    with open(f"{dataset}/train.jsonl", "a") as file:
        file.write(json.dumps({"text": "more"}) + "\n")
    assert len(keys | {HubCorpus(dataset).key()}) == 7
    assert before in keys


@pytest.mark.slow
def test_offline_it_fails_at_once_and_names_the_alternatives(silent):
    start = time.perf_counter()
    with pytest.raises(ConnectionError, match=r"data.name = owner/name: no connection to http://127") as failure:
        HubCorpus("owner/name").texts()
    assert time.perf_counter() - start < 6
    assert "data=stdlib" in str(failure.value)
    assert "data=text data.path=" in str(failure.value)


def test_a_refused_connection_fails_sooner_still(silent, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{port}")
    start = time.perf_counter()
    with pytest.raises(ConnectionError, match=r"no connection"):
        require_hub("owner/name", streaming=True)
    assert time.perf_counter() - start < 2


@pytest.mark.parametrize("flag", ["HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"])
def test_an_offline_flag_is_believed(silent, monkeypatch, flag):
    monkeypatch.setenv(flag, "1")
    start = time.perf_counter()
    with pytest.raises(ConnectionError, match=f"{flag} .*data=stdlib"):
        require_hub("owner/name", streaming=True)
    require_hub("owner/name", streaming=False)  # a downloaded copy may do
    assert time.perf_counter() - start < 1


def test_a_hub_that_answers_is_a_hub_even_when_it_says_no(monkeypatch, silent):
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")

        def say_no():
            connection, _ = server.accept()
            connection.recv(1000)
            connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            connection.close()

        threading.Thread(target=say_no, daemon=True).start()
        require_hub("owner/name", streaming=True)


def test_a_dataset_that_cannot_be_read_names_the_alternatives(dataset):
    with pytest.raises(ConnectionError, match=r"split nowhere: cannot be read .*data=stdlib"):
        HubCorpus(dataset, split="nowhere").texts()


def test_bad_settings_name_themselves():
    with pytest.raises(ValueError, match=r"data.name is not set: .* Give data.name=roneneldan/TinyStories"):
        HubCorpus(None)
    with pytest.raises(ValueError, match=r"data.max_bytes = 0: give a whole number from 1"):
        HubCorpus("owner/name", max_bytes=0)


def test_a_name_that_is_looked_up_forever_is_not_waited_for(silent, monkeypatch):
    monkeypatch.setattr("dsa.data.hub.PATIENCE", 0.2)
    woken = threading.Event()

    def look_up(*_, **__):
        woken.wait(5)
        raise OSError("no such name")

    monkeypatch.setattr("urllib.request.urlopen", look_up)
    start = time.perf_counter()
    with pytest.raises(ConnectionError, match="no connection"):
        require_hub("owner/name", streaming=True)
    assert time.perf_counter() - start < 2
    woken.set()
