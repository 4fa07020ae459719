"""Every yaml of conf/data composes, builds and gives a batch; those that need a network compose alone."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import OmegaConf

CONF = Path(__file__).parents[2] / "conf"
OPTIONS = sorted(path.stem for path in (CONF / "data").glob("*.yaml"))
NETWORK = ("hub", "tinystories", "wikitext")
MODEL = ("retrieval_model", "stdlib_model", "text_model")  # they are read by the tokenizer of a pretrained model


@pytest.fixture
def composed(cache):
    """data=<option> under a primary config of this test's own."""
    top = {
        "seq_len": 128,
        "seed": 3,
        "cache_dir": str(cache / "dsa"),
        "model": {"path": "none"},
        "defaults": [{"data": "stdlib"}, "_self_"],
    }
    ConfigStore.instance().store("data_probe", top)

    def build(*overrides):
        with initialize_config_dir(str(CONF), version_base=None):
            return compose("data_probe", list(overrides)).data

    return build


@pytest.mark.parametrize("option", OPTIONS)
def test_it_begins_with_a_comment_and_composes(composed, option):
    assert (CONF / "data" / f"{option}.yaml").read_text().startswith("# ")
    data = composed(f"data={option}")
    OmegaConf.to_container(data, resolve=True, throw_on_missing=True)
    assert data._target_ == "dsa.data.DataModule"


@pytest.mark.slow
@pytest.mark.parametrize("option", [option for option in OPTIONS if option not in NETWORK + MODEL])
def test_it_builds_and_gives_batches(composed, option, book):
    path = [f"data.path={book}"] if option.startswith("text") else []
    length = 512 if option.startswith("retrieval") else 128
    module = instantiate(composed(f"data={option}", *path, f"seq_len={length}"))
    batch = module.batch("dense", 0)
    assert batch.tokens.shape == batch.targets.shape == (module.batch_size, length)
    assert int(batch.tokens.max()) < module.vocab_size
    evaluation = list(module.eval_loader())
    assert len(evaluation) == module.eval_batches
    assert (evaluation[0].slice is not None) == option.startswith(("stdlib", "text"))
    assert 0 < module.unigram_loss <= module.chance_loss + 1e-9


def test_options_keys_reach_the_source(composed):
    assert instantiate(composed("data=mqar", "data.pairs=3", "data.gap=7")).source.layout(128)[1:3] == (3, 7)
    with pytest.raises(InstantiationException, match=r"data.path is not set"):
        instantiate(composed("data=text"))
    with pytest.raises(InstantiationException, match=r"data.name is not set"):
        instantiate(composed("data=hub"))
