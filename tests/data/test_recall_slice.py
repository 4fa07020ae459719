import numpy as np
import pytest

from dsa.data import RecallSlice


def slow(rows, ngram, window):
    marked = np.zeros(rows[:, 1:].shape, bool)
    for r, row in enumerate(rows.tolist()):
        for j in range(ngram, len(row)):
            found = [i for i in range(ngram, j) if row[i - ngram : i + 1] == row[j - ngram : j + 1]]
            marked[r, j - 1] = bool(found) and j - max(found) > window
    return marked


@pytest.mark.parametrize(("ngram", "window"), [(1, 1), (2, 5), (3, 12), (6, 20), (2, 1000), (80, 1)])
@pytest.mark.parametrize("vocab", [2, 5, 2048])
def test_it_equals_the_obvious_search(ngram, window, vocab):
    rows = np.random.default_rng(ngram).integers(vocab, size=(7, 65))
    rows[:, 40:60] = rows[:, 10:30]
    assert (RecallSlice(ngram, window)(rows) == slow(rows, ngram, window)).all()


def test_it_marks_the_far_repetition_and_not_the_near_one():
    row = np.array([[*b"abcX", *b"-" * 20, *b"abcX", *b"abcX"]])
    marked = RecallSlice(3, 8)(row)[0]
    assert marked[26]  # the target X of the second abc: 24 tokens back
    assert not marked[30]  # the third: 4 tokens back
    assert not marked[2]  # the first: never seen before


def test_another_row_is_no_memory():
    rows = np.array([[*b"abcX", *b"-" * 9], [*b"123456789", *b"abcX"]])
    assert not RecallSlice(3, 1)(rows)[1].any()


def test_a_window_of_the_distance_itself_is_near():
    row = np.array([[1, 2, 3, 4, 1, 2]])  # the 2 was seen 4 tokens back
    assert RecallSlice(1, 3)(row)[0, 4]
    assert not RecallSlice(1, 4)(row)[0, 4]


@pytest.mark.parametrize("setting", ["ngram", "window"])
def test_impossible_numbers_name_the_setting(setting):
    with pytest.raises(ValueError, match=f"data.source.recall_slice.{setting} = 0: "):
        RecallSlice(**{"ngram": 6, "window": 96, setting: 0})
