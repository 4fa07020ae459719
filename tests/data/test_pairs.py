"""Budgets as keys for each pair of a row: on the recall tasks, by one setting, for one run and for studies."""

import pytest

from dsa import compose
from dsa.share import keys_per_pair, short

TASK = ["model=mqar", "pattern=causal"]


def budget(data: str, ratio: str, seq_len: int = 128, *more: str) -> int:
    """Keys of each query under a ratio."""
    spec = compose([*TASK, f"data={data}", f"seq_len={seq_len}", "selector.k=${pairs:" + ratio + "}", *more])
    return spec.selector.node["k"]


@pytest.mark.parametrize(
    ("data", "ratio", "seq_len", "keys"),
    [
        ("mqar", "1/4", 128, 2), ("mqar", "1/2", 128, 4), ("mqar", "1", 128, 8), ("mqar", "2", 128, 16),
        ("mqar", "0.5", 256, 8), ("needle", "1", 128, 1), ("needle", "2", 128, 2), ("induction", "1/2", 128, 4),
    ],
)  # fmt: skip
def test_a_budget_may_be_keys_for_each_pair_that_a_row_asks_for(data, ratio, seq_len, keys):
    assert budget(data, ratio, seq_len) == keys


def test_pairs_that_were_set_count():
    assert budget("mqar", "1/2", 128, "data.pairs=6") == 3


@pytest.mark.parametrize(("data", "source"), [("stdlib", "TextSource"), ("noise", "Noise")])
def test_data_without_pairs_are_refused(data, source):
    told = rf"^\${{pairs:1/2}}: rows of dsa.data.{source} hold no pairs to recall; give a number of keys or \${{share"
    with pytest.raises(ValueError, match=told):
        budget(data, "1/2")


@pytest.mark.parametrize(
    ("data", "ratio", "told"),
    [
        ("needle", "1/2", "of 1 pair that is less than one key"),
        ("mqar", "1/32", "of 8 pairs that is less than one key"),
        ("mqar", "many", "give keys for a pair as 1/2 or 2"),
        ("mqar", "-1", "keys for a pair is above 0"),
    ],
)
def test_what_is_no_budget_is_refused_in_a_sentence(data, ratio, told):
    with pytest.raises(ValueError, match=told):
        budget(data, ratio)


def test_no_class_is_made_for_it_that_a_configuration_may_not_name():
    with pytest.raises(ValueError, match="configs may only name classes of dsa"):
        budget("mqar", "1", 128, "data.source._target_=os.system")


def test_labels_and_ratios_are_read_from_what_is_written():
    assert [short(value) for value in ("${pairs:1/4}", "${share:1/16,8}", 8)] == ["1/4pairs", "1/16,8share", 8]
    assert [keys_per_pair(value) for value in ("${pairs:1/4}", "${share:1/16}", 8)] == [0.25, None, None]
