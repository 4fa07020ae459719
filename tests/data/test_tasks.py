import itertools

import numpy as np
import pytest
import torch

from dsa.data import IGNORE, MQAR, Induction, Needle, Noise
from dsa.data.hashing import generator

RECALL = {
    "mqar": MQAR,
    "mqar plain": lambda: MQAR(decoys=0, strays=0),
    "mqar crowded": lambda: MQAR(pairs=11, decoys=22, strays=24, gap=2),
    "needle": Needle,
    "needle near": lambda: Needle(gap=1),
    "needle alone": lambda: Needle(decoys=0),
    "induction": Induction,
    "induction crowded": lambda: Induction(pairs=15, gap=5),
}


@pytest.fixture(params=RECALL)
def task(request):
    return RECALL[request.param]()


@pytest.fixture
def batch(task):
    task.check(128)
    return task.sample(64, 128, generator("test"))


def recall(row, t, reach=None):
    """What followed the latest earlier occurrence of row[t] among the `reach` nearest keys; None if there is none."""
    first = 0 if reach is None else max(0, t - reach + 1)
    return next((row[i + 1] for i in range(t - 1, first - 1, -1) if row[i] == row[t]), None)


def queries(batch):
    for row, targets in zip(batch.tokens.tolist(), batch.targets.tolist(), strict=True):
        for t, target in enumerate(targets):
            if target != IGNORE:
                yield row, t, target


def test_memory_solves_it(batch):
    assert all(recall(row, t) == target for row, t, target in queries(batch))


@pytest.mark.parametrize(("task", "gap"), [(MQAR(), 48), (Needle(), 48), (Induction(), 48), (MQAR(gap=30), 30)])
def test_the_gap_is_kept_exactly(task, gap):
    found = []
    for row, t, _ in queries(task.sample(400, 128, generator("test"))):
        value = next(i + 1 for i in range(t - 1, -1, -1) if row[i] == row[t])
        found.append(t - value)
    assert min(found) == gap  # never less, and reached


def test_a_window_of_the_gap_does_not_solve_it():
    for task in (MQAR(), Needle(), Induction()):
        batch = task.sample(64, 128, generator("test"))
        assert all(recall(row, t, reach=48) is None for row, t, _ in queries(batch))


@pytest.mark.parametrize(("task", "asked"), [(MQAR(), 8), (MQAR(pairs=3), 3), (Needle(), 1), (Induction(), 8)])
def test_the_query_positions_alone_are_asked(task, asked):
    batch = task.sample(64, 128, generator("test"))
    assert ((batch.targets != IGNORE).sum(1) == asked).all()
    assert batch.slice is None
    assert batch.tokens.dtype == batch.targets.dtype == torch.int64


def test_mqar_scales_with_the_length_as_science_says():
    for seq_len, pairs, gap in ((128, 8, 48), (256, 16, 96), (2048, 32, 768), (16, 1, 6)):
        layout = MQAR().layout(seq_len)
        assert (layout.pairs, layout.others, layout.gap) == (pairs, 2 * pairs, gap)
        MQAR().check(seq_len)
    assert MQAR(decoys=0).layout(2048).pairs == 64


def test_decoys_are_never_asked_for_and_strays_follow_no_key():
    batch = MQAR(pairs=5, decoys=7, strays=9).sample(64, 128, generator("test"))
    for row, targets in zip(batch.tokens, batch.targets, strict=True):
        key, value = row < 64, (row >= 64) & (row < 128)
        behind_key = value[1:] & key[:-1]
        assert value.sum() == 5 + 7 + 9 and behind_key.sum() == 5 + 7
        asked = row[targets != IGNORE]
        assert len(asked) == 5 and len(row[:-1][behind_key].unique()) == 12
        assert set(asked.tolist()) <= set(row[:-1][behind_key].tolist())
    batch = Needle(decoys=7, strays=9).sample(64, 128, generator("test"))
    for row in batch.tokens:
        key, value = row < 64, (row >= 64) & (row < 128)
        assert value.sum() == 17 and (value[1:] & key[:-1]).sum() == 8
        assert (row[:-1][key[:-1]] == row[-1]).sum() == 1


def test_mqar_keys_values_and_noise_are_ranges_of_their_own():
    batch = MQAR(decoys=0, strays=0).sample(256, 128, generator("test"))
    kinds = batch.tokens // 64
    assert ((kinds == 0).sum(1) == 16).all()  # a key in its pair and in its query
    assert ((kinds == 1).sum(1) == 8).all()
    for row, t, target in queries(batch):
        assert row[t] < 64 <= target < 128
    for row in batch.tokens:
        assert len(row[row < 64].unique()) == 8
    assert set(batch.tokens.unique().tolist()) == set(range(192))


def test_mqar_pairs_lie_anywhere_so_that_no_fixed_places_answer():
    tokens = MQAR(decoys=0, strays=0).sample(2000, 128, generator("test")).tokens
    share = ((tokens >= 64) & (tokens < 128)).float().mean(0)
    assert share.max() < 0.4  # of the rows have a value at one place; side by side it would be all of them


def test_the_needle_is_asked_for_by_the_last_token_and_lies_anywhere():
    batch = Needle(decoys=0).sample(2000, 128, generator("test"))
    assert (batch.targets[:, -1] != IGNORE).all()
    assert (batch.targets[:, :-1] == IGNORE).all()
    places = (batch.tokens < 64).int().argmax(1)
    assert set(places.tolist()) == set(range(128 - 48 - 1))


def test_answers_are_spread_evenly_so_that_chance_is_chance(task):
    batch = task.sample(4000, 128, generator("test"))
    answers = batch.targets[batch.targets != IGNORE]
    counts = torch.bincount(answers)[answers.min() :].float()
    assert len(counts) == (48 if isinstance(task, Induction) else 64)
    assert counts.min() > 0.6 * counts.mean()
    assert task.chance_loss == task.unigram_loss == pytest.approx(np.log(len(counts)))
    assert batch.tokens.max() < task.vocab_size


def test_noise_targets_have_nothing_to_do_with_the_tokens():
    task = Noise()
    batch = task.sample(256, 256, generator("test"))
    assert task.chance_loss == task.unigram_loss == pytest.approx(np.log(256))
    assert (batch.targets >= 0).all()
    tokens, targets = batch.tokens.flatten().double(), batch.targets.flatten().double()
    assert abs(torch.corrcoef(torch.stack([tokens, targets]))[0, 1]) < 0.02
    assert (batch.tokens[:, 1:] == batch.targets[:, :-1]).double().mean() < 0.01


def test_fingerprints_follow_class_and_settings():
    tasks = [MQAR(), MQAR(pairs=8), MQAR(gap=8), MQAR(noise=32), Needle(), Needle(gap=8), Induction(), Noise()]
    assert len({task.fingerprint for task in tasks}) == len(tasks)
    assert MQAR().fingerprint == MQAR().fingerprint


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MQAR(pairs=0).check(64), r"data.pairs = 0: give a whole number from 1"),
        (lambda: MQAR(gap=0).check(64), r"data.gap = 0: "),
        (lambda: Induction(gap=-3), r"data.gap = -3: "),
        (
            lambda: MQAR(pairs=8, decoys=0, strays=0, gap=60).check(64),
            r"data.pairs = 8 and data.gap = 60: they need 83 .* seq_len = 64; .* fits is 83\.",
        ),
        (lambda: MQAR().check(2), r"they need 7 tokens, but seq_len = 2; the next length that fits is 9\."),
        (lambda: MQAR(decoys=9, strays=3).check(40), r"data.pairs = 2, amid 12 decoys and strays, and .*they need 44"),
        (lambda: MQAR(pairs=33).check(4096), r"data.pairs = 33 and data.decoys = 33: .* distinct, and there are 64"),
        (lambda: MQAR(decoys=-1), r"data.decoys = -1: "),
        (lambda: Needle(strays=-1), r"data.strays = -1: "),
        (lambda: Needle(decoys=64).check(4096), r"data.decoys = 64: .* there are 64. Give at most 63"),
        (lambda: Induction(pairs=17).check(4096), r"data.pairs = 17: a row's prefixes are distinct, and there are 16"),
        (lambda: Needle(gap=63).check(64), r"data.gap = 63: .* seq_len = 64. Give a smaller gap"),
        (lambda: Needle().check(2), "seq_len = 2"),
        (lambda: Noise(vocab=1), r"data.source.vocab = 1: "),
    ],
)
def test_impossible_settings_name_themselves(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_the_tightest_settings_that_are_allowed_can_be_made():
    for pairs, gap in itertools.product((1, 2, 7), (1, 5)):
        for width, task in ((1, MQAR(pairs, 0, 0, gap)), (2, Induction(pairs, gap))):
            shortest = (2 + width) * pairs + gap - 1
            task.check(shortest)
            batch = task.sample(16, shortest, generator("test"))
            assert all(recall(row, t) == target for row, t, target in queries(batch))
            with pytest.raises(ValueError, match=f"they need {shortest} tokens"):
                task.check(shortest - 1)
    Needle(0, gap=5).check(7)
    assert Needle(0, gap=5).sample(4, 7, generator("test")).tokens.shape == (4, 7)
