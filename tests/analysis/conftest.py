"""multipletests collects garbage at every call: thousands of calls need a small heap."""

import gc

import pytest


@pytest.fixture(autouse=True)
def _small_heap():
    gc.freeze()
    yield
    gc.unfreeze()
