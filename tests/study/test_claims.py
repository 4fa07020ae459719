"""Who works on a job, and when that counts as given up."""

import json
import os
import time

import pytest

from dsa.study.workers.claim import CLAIM, claimed, further, given_up, working
from study.studies import GONE


def test_a_claim_keeps_others_away_until_it_ends(tmp_path):
    with claimed(tmp_path) as mine, claimed(tmp_path) as other:
        assert (mine, other) == (True, False)
        assert working(tmp_path)
    assert not working(tmp_path)
    assert not given_up(tmp_path)


@pytest.mark.parametrize("claim", [{"host": "elsewhere", "pid": 1, "token": "x"}, GONE])
def test_a_claim_is_stale_without_a_heartbeat_or_without_its_process(tmp_path, claim):
    (tmp_path / CLAIM).write_text(json.dumps(claim))
    if claim["host"] == "elsewhere":
        assert working(tmp_path), "a fresh heartbeat of another host counts"
        os.utime(tmp_path / CLAIM, (time.time() - 120,) * 2)
    assert given_up(tmp_path)
    with claimed(tmp_path) as mine:
        assert mine


def test_a_claim_dated_in_the_future_is_no_heartbeat(tmp_path):
    (tmp_path / CLAIM).write_text(json.dumps({"host": "elsewhere", "pid": 1, "token": "x"}))
    os.utime(tmp_path / CLAIM, (time.time() + 7200,) * 2)
    assert given_up(tmp_path)


def test_a_live_process_of_this_host_keeps_its_claim_without_a_heartbeat(tmp_path):
    with claimed(tmp_path):
        os.utime(tmp_path / CLAIM, (time.time() - 120,) * 2)
        assert working(tmp_path), "it is stopped or swapped out, and will go on"


def test_who_lost_a_claim_leaves_that_of_another_alone(tmp_path):
    with claimed(tmp_path):
        (tmp_path / CLAIM).write_text(json.dumps({"host": "elsewhere", "pid": 1, "token": "theirs"}))
    assert json.loads((tmp_path / CLAIM).read_text())["token"] == "theirs"


def test_deaths_count_while_a_job_gets_no_further(tmp_path, monkeypatch):
    dead = GONE | {"job_id": "7"}
    progress = lambda since: further(tmp_path, ["joint/*-1234.partial/last.ckpt"], since)

    def deaths(before, **environment):
        (tmp_path / CLAIM).write_text(json.dumps(dead | before))
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        with claimed(tmp_path, progress) as mine:
            assert mine
            return json.loads((tmp_path / CLAIM).read_text())["deaths"]

    assert deaths({"deaths": 1, "started": time.time()}) == 2
    (tmp_path / "joint" / "h1d8-1234.partial").mkdir(parents=True)
    (tmp_path / "joint" / "h1d8-1234.partial" / "last.ckpt").touch()
    assert deaths({"deaths": 1, "started": time.time() - 9}) == 0, "a checkpoint was saved since"
    assert deaths({"deaths": 1, "started": time.time() + 9}, SLURM_JOB_ID="7") == 1, "the same job, requeued"
    elsewhere = {"host": "elsewhere", "started": time.time() + 9, "deaths": 0}
    assert deaths(elsewhere, SLURM_JOB_ID="7") == 0, "though its heart beat a moment ago"


def test_deaths_at_the_same_work_under_another_name_count(tmp_path):
    with claimed(tmp_path, deaths=1):
        assert json.loads((tmp_path / CLAIM).read_text())["deaths"] == 1
