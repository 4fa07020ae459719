"""Does the suite tell good selections from bad? Multi-query recall, judged on the untouched backbone."""

import pytest
from conftest import QUIET

from dsa import compose, train

pytestmark = pytest.mark.slow
TASK = ["experiment=recall", "indexer=h2d16", "seq_len=64", "recipe.dense.steps=250", "callbacks.val_every=250"]


def test_a_trained_indexer_recalls_what_an_untrained_one_and_a_window_cannot(outputs):
    common = [*QUIET, *TASK, "dense_control=false", f"output_dir={outputs}"]
    untrained = train(compose([*common, "recipe.warmup.steps=0", "recipe.sparse.steps=1"]))
    trained = train(compose([*common, "recipe.warmup.steps=120", "recipe.sparse.steps=1"]))
    assert trained.artifacts["base"] == untrained.artifacts["base"]
    assert trained.base_val_accuracy >= 0.98  # dense
    assert trained.swap_val_accuracy >= 0.9
    assert untrained.swap_val_accuracy <= 0.4
    assert trained.swap_window_accuracy <= 0.1
    assert trained.swap_selection["mean"]["mass"] > untrained.swap_selection["mean"]["mass"]
