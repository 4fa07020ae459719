"""A machine at its end (no memory) is told in a sentence that says what to do, and sorted by that."""

import errno

import pytest
import torch
from conftest import QUIET, SMALL

from dsa import compose, train
from dsa.training import RunFailed
from dsa.training.errors import category, reason

ENDLESS = 10**15  # elements that no machine has memory for


def torch_on_the_cpu() -> None:
    torch.empty(ENDLESS)


def python() -> None:
    bytearray(ENDLESS)


def the_system() -> None:
    raise OSError(errno.ENOMEM, "Cannot allocate memory")


def the_graphics_card() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


@pytest.mark.parametrize("ask", [torch_on_the_cpu, python, the_system, the_graphics_card])
def test_whoever_runs_out_of_memory_it_is_out_of_memory_and_says_what_to_make_smaller(ask):
    with pytest.raises(Exception) as ended:
        ask()
    assert category(ended.value) == "out_of_memory"
    told = reason(ended.value)
    assert all(setting in told for setting in ("data.batch_size", "seq_len", "trainer.accumulate"))


def test_a_tensor_of_another_shape_is_no_lack_of_memory():
    with pytest.raises(RuntimeError) as ended:
        torch.ones(2, 3) @ torch.ones(2, 3)
    assert category(ended.value) == "error"
    assert "data.batch_size" not in reason(ended.value)


@pytest.mark.slow
def test_a_run_that_runs_out_of_memory_says_so_and_what_to_do(outputs, monkeypatch):
    monkeypatch.setattr("dsa.training.base.fit", lambda *_: torch.empty(ENDLESS))
    with pytest.raises(RunFailed, match=r"can't allocate memory.*data\.batch_size") as ended:
        train(compose([*SMALL, *QUIET, "steps=8", f"output_dir={outputs}"]))
    assert ended.value.kind == "out_of_memory"
