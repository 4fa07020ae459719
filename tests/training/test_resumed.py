"""Joint training that is cut goes on to the same numbers, with what decides a selection by more than one part."""

import pytest
from conftest import QUIET, SMALL, fitting
from interrupted import cut_and_resumed

from dsa import compose, train

RUN = [
    *SMALL, *QUIET, "seq_len=32", "dtype=fp32", "recipe.dense.steps=2", "recipe.warmup.steps=2",
    "recipe.sparse.steps=4", "callbacks.checkpoint_every=2", "dense_control=false", "selector.k=8",
]  # fmt: skip
KINDS = {
    "multi_head": ["indexer=h2d8", "pattern=multi_head"],
    "learned": ["indexer=h2d8", "pattern=learned"],
    "multi_scale": [*fitting("indexer", "multi_scale"), "pattern=causal"],
    "hisa": [*fitting("indexer", "hisa"), "pattern=causal"],
    "minimax_m3": [*fitting("indexer", "minimax_m3"), "pattern=causal"],
    "glm5_kpool": [*fitting("indexer", "glm5_kpool"), "pattern=causal"],
    "int8 in training": ["indexer=h2d8", "pattern=causal", "precision=int8", "precision.in_training=true"],
}


@pytest.mark.slow
@pytest.mark.parametrize("own", KINDS.values(), ids=KINDS)
def test_a_run_goes_on_after_a_kill_in_joint_training_to_the_same_numbers(outputs, own, monkeypatch):
    whole = train(compose([*RUN, *own, f"output_dir={outputs}/whole"]))
    cut = cut_and_resumed([*RUN, *own, f"output_dir={outputs}/cut"], monkeypatch)
    assert whole.density < 1
    assert (cut.val_loss, cut.swap_val_loss) == (whole.val_loss, whole.swap_val_loss)
    assert cut.selection == whole.selection
