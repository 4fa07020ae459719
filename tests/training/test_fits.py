"""Memory that a pretrained model needs is compared with what is free before it is read; what would fit is named."""

import re
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("transformers", reason="the extra dsa[pretrained] is not installed")
from backbones.tiny_models import CONFIGS, NARROW, WINDOWS, saved
from conftest import QUIET
from transformers import GptOssConfig

import dsa
from dsa import compose
from dsa.backbones import Pass
from dsa.backbones.pretrained import Pretrained
from dsa.doors.budget import main
from dsa.judging.speed import peak_megabytes
from dsa.training import RunRefused
from dsa.training.fits import check_room, memory_needed, size_of, too_many

MB = 2**20


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    folder = saved(tmp_path_factory.mktemp("model") / "tiny", CONFIGS["llama"](), tokenizer=True)
    text = tmp_path_factory.mktemp("text")
    for number in range(12):
        (text / f"{number}.txt").write_text("def self return None for in " * 99 + str(number))
    return [
        "model=pretrained", f"model.path={folder}", "data=text_model", f"data.path={text}", f"cache_dir={text}",
        "seq_len=256", "data.eval_batch_size=8", f"output_dir={text / 'outputs'}", *QUIET, "indexer=h2d8",
    ]  # fmt: skip


def free(monkeypatch, megabytes):
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(total=2**40, available=megabytes * MB))


@pytest.mark.slow
def test_what_would_fit_is_named_and_fits(given, monkeypatch):
    spec = compose(given)
    need = memory_needed(spec) / MB
    free(monkeypatch, need)
    check_room(spec)
    free(monkeypatch, need * 0.6)
    with pytest.raises(
        ValueError,
        match=r"^model\.path = .*: with seq_len = 256 and data\.eval_batch_size = 8 it needs "
        r"about .* GB of memory, and .* are free\. data\.eval_batch_size=4 or seq_len=192 would fit\.$",
    ):
        check_room(spec)  # fmt: skip
    check_room(compose([*given, "data.eval_batch_size=4"]))
    check_room(compose([*given, "seq_len=192"]))
    free(monkeypatch, 0.1)
    with pytest.raises(
        ValueError, match=r"Even data\.eval_batch_size=1 seq_len=64 needs 0\.0 GB: give a smaller model"
    ):
        check_room(spec)


@pytest.mark.slow
def test_where_the_model_itself_learns_smaller_parts_of_a_batch_are_named(given, monkeypatch):
    learning = [*given, "recipe=adapt", "data.batch_size=16", "data.eval_batch_size=1"]
    spec = compose(learning)
    assert memory_needed(spec) > memory_needed(compose([*learning, "recipe=pretrained"]))
    assert memory_needed(compose([*learning, "data.eval_batch_size=64"])) > memory_needed(spec)
    free(monkeypatch, memory_needed(spec) / MB * 0.6)
    with pytest.raises(ValueError, match=r"with trainer\.accumulate = 1, seq_len = 256") as refused:
        check_room(spec)
    parts = re.search(r"trainer\.accumulate=(\d+) or", str(refused.value))
    assert parts is not None
    check_room(compose([*learning, f"trainer.accumulate={parts[1]}"]))


def test_train_and_budget_say_it_before_the_model_is_read(given, monkeypatch, capsys):
    free(monkeypatch, 1)
    monkeypatch.setattr("dsa.backbones.pretrained.model.loaded", lambda path: pytest.fail("it was read"))
    with pytest.raises(RunRefused, match="GB of memory"):
        dsa.train(compose(given))
    assert main(given[:-1]) == 2
    assert "GB of memory" in capsys.readouterr().err


@pytest.mark.slow
def test_all_experts_count_and_the_copies_of_those_that_tokens_go_through(given, tmp_path):
    sizes = NARROW | {"hidden_size": 64, "intermediate_size": 96}
    config = GptOssConfig(**sizes, **WINDOWS, num_local_experts=8, num_experts_per_tok=2)
    folder = saved(tmp_path / "experts", config, tokenizer=True)
    spec = compose([*given, f"model.path={folder}", "data.eval_batch_size=1"])
    model = Pretrained(64, str(folder))
    size = size_of(spec)
    assert size.parameters == sum(weight.numel() for weight in model.parameters())
    assert size.routed == 2 * 3 * 64 * 96
    tokens = torch.zeros(1, 256, dtype=torch.long)
    with torch.no_grad():
        copies = peak_megabytes(lambda: model.run(tokens, Pass(sparse=False)), torch.device("cpu"))
    assert 0.8 < memory_needed(spec) / MB / (copies + size.parameters * 4 / MB) < 2


def test_jobs_that_run_at_once_are_compared_with_what_is_free_for_all_together(given, monkeypatch):
    specs = [compose([*given, f"seq_len={length}"]) for length in (64, 256, 128)]
    need = memory_needed(specs[1]) / MB
    free(monkeypatch, need * 2.5)
    assert too_many(specs, 1) is None and too_many(specs, 2) is None and too_many(specs[:1], 8) is None
    assert re.fullmatch(
        r"3 jobs at once need up to .* GB of memory, .* are free here: 2 at once would fit\.", too_many(specs, 8)
    )


def test_a_model_that_is_trained_here_is_not_asked_about(monkeypatch):
    free(monkeypatch, 0)
    check_room(compose([]))


@pytest.mark.slow
def test_budget_tells_a_failure_that_is_no_setting_in_a_sentence(given, monkeypatch, capsys):
    def full(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dsa.backbones.pretrained.model.loaded", full)
    assert main(given[:-1]) == 1
    assert "The disk is full" in capsys.readouterr().err
