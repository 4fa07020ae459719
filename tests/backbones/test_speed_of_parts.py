"""The time of a part of the attention is that of its work, also where a device works on after it was told."""

import time

import pytest
import torch
from conftest import SMALL

from dsa import build_model, compose
from dsa.backbones import router
from dsa.judging.speed import events, inference, milliseconds, quiet_profile

GPU, CPU = torch.device("cuda", 0), torch.device("cpu")
WORK = 0.03  # seconds


@pytest.fixture
def busy(monkeypatch):
    """A GPU that does what it was told only when it is waited for; how often it was."""
    told, waits = [], []

    def synchronize(device):
        waits.append(device)
        time.sleep(sum(told))
        told.clear()

    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    return told, waits


def spans(record):
    return {event.name(): event.duration_ns() / 1e9 for event in events(record) if event.name().startswith("dsa/")}


def test_a_part_on_a_gpu_lasts_until_its_own_work_is_done_and_no_longer(busy):
    told, _ = busy
    with quiet_profile() as record:
        told.append(WORK)  # of what came before: no time of the part
        with router.named("select", GPU):
            pass
        with router.named("attend", GPU):
            told.append(WORK)
    found = spans(record)
    assert found["dsa/select"] < WORK / 2
    assert found["dsa/attend"] >= WORK


def test_nobody_waits_on_a_cpu_or_where_nothing_is_measured(busy):
    told, waits = busy
    with router.named("select", GPU):
        told.append(WORK)
    with quiet_profile(), router.named("select", CPU):
        pass
    assert waits == []


def test_a_call_on_a_gpu_is_timed_until_it_is_done(busy):
    told, waits = busy
    assert milliseconds(lambda: told.append(WORK), GPU, repeats=1, seconds=9.0) >= WORK * 1e3
    assert waits == [GPU] * 4


@pytest.mark.parametrize(("repeats", "seconds", "calls"), [(3, 9.0, 4), (9, 0.0, 2), (9, 2.5, 4)])
def test_a_short_call_is_timed_several_times_and_a_long_one_once_after_one_that_warms_up(
    monkeypatch, repeats, seconds, calls
):
    clock, made = [0.0], []
    monkeypatch.setattr("dsa.judging.speed.time.perf_counter", lambda: clock[0])

    def a_second() -> None:
        made.append(1)
        clock[0] += 1.0 if len(made) > 1 else 7.0

    assert milliseconds(a_second, CPU, repeats, seconds) == 1e3
    assert len(made) == calls


def test_every_part_of_a_pass_says_on_which_device_it_works(monkeypatch):
    seen = {}
    whole = router.waited_for
    monkeypatch.setattr(router, "waited_for", lambda part, device: seen.update({part: device}) or whole(part, device))
    model = build_model(compose([*SMALL, "pattern=causal", "selector.k=8", "ops=blocked"]), 64)
    spent = inference(model, torch.zeros(1, 64, dtype=torch.long), sparse=True)
    assert seen == dict.fromkeys(("indexer", "select", "attend"), CPU)
    assert all(spent[f"{part}_ms"] > 0 for part in seen)
