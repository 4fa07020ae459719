"""Memory does not grow with layers x length squared."""

import pytest
from conftest import SMALL

from dsa import build_model, compose
from dsa.build import build_data
from dsa.judging.speed import peak_megabytes
from dsa.training.assemble import one_step

LENGTH = 2048


@pytest.mark.slow
@pytest.mark.parametrize("ops", ["auto", "blocked"])
def test_a_layer_more_costs_far_less_than_one_square_matrix(ops):
    peaks = []
    for layers in (1, 3):
        cfg = compose([*SMALL, f"model.layers={layers}", f"seq_len={LENGTH}", "selector.k=32", f"ops={ops}"])
        data = build_data(cfg)
        model = build_model(cfg, data.vocab_size)
        tokens = data.batch("sparse", 0).tokens[:1]

        def step(model=model, tokens=tokens):
            one_step(model, tokens, True, learns=True)

        peaks.append(peak_megabytes(step, tokens.device))
    square = LENGTH**2 * 4 / 2**20
    assert peaks[1] > peaks[0] > 1
    assert (peaks[1] - peaks[0]) / 2 < square / 2
