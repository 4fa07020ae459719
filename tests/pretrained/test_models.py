"""What is put together for judgements, with a pretrained model as base."""

import gc
import weakref

import pytest

pytest.importorskip("transformers", reason="the extra dsa[pretrained] is not installed")
from backbones.tiny_models import CONFIGS, saved

from dsa import compose
from dsa.artifacts.store import Store
from dsa.graph import graph_of
from dsa.judging.models import Models


@pytest.fixture
def by_hand():
    """No collection of garbage but those that are asked for."""
    gc.disable()
    yield
    gc.enable()


def base_of(spec):
    """What the base of a run is called."""
    return graph_of(spec, "a corpus").base


@pytest.mark.slow
def test_one_model_is_in_memory_at_a_time(tmp_path, by_hand):
    given = ["model=pretrained", f"model.path={saved(tmp_path / 'llama', CONFIGS['llama']())}"]
    one, two, three = (compose([*given, f"seq_len={length}"]) for length in (32, 48, 64))
    store = Store(tmp_path)
    models = Models(store, 64)
    first = weakref.ref(models.base(one, base_of(one)))
    assert models.base(one, base_of(one)) is first()
    second = weakref.ref(models.base(two, base_of(two)))
    assert first() is None
    models = Models(store, 64)  # another job
    models.base(three, base_of(three))
    assert second() is None
