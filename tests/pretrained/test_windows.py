"""Models whose layers all have a window: routed within it, where it never acts, and refused beyond."""

import pytest
import torch

pytest.importorskip("transformers", reason="the extra dsa[pretrained] is not installed")
from backbones.test_adopted import routed
from backbones.tiny_models import CONFIGS, GROUPED, made, saved
from transformers import DynamicCache, MistralConfig, Phi3Config

from dsa import compose
from dsa.backbones import Pass
from dsa.backbones.pretrained import Adopted
from dsa.graph import base_of
from dsa.training.sites import sites_of

LENGTH = 32
TOKENS = torch.randint(1, 64, (2, LENGTH + 8), generator=torch.Generator().manual_seed(0))


def chunked():
    """Every layer sees its own chunk alone."""
    config = CONFIGS["llama4"]()
    config.attention_chunk_size, config.layer_types = LENGTH, ["chunked_attention"] * 2
    return config


ALL = {
    "mistral": lambda: MistralConfig(**GROUPED, sliding_window=LENGTH),
    "phi3": lambda: Phi3Config(**GROUPED, sliding_window=LENGTH),
    "llama4": chunked,
}


@pytest.fixture(params=ALL)
def config(request):
    return ALL[request.param]()


@torch.no_grad()
def test_within_its_window_a_model_is_routed_and_with_every_key_it_is_itself(config):
    tiny, tokens = made(config), TOKENS[:, :LENGTH]
    before = tiny(input_ids=tokens).logits
    model = Adopted(tiny, seq_len=LENGTH)
    assert len(model.sites) == 2 and model.run(tokens, Pass(sparse=False)).logits.equal(before)
    every = routed(model, LENGTH - 1).run(tokens, Pass()).logits
    torch.testing.assert_close(every[:, :-1], before[:, :-1], atol=1e-4, rtol=0)
    sparse = routed(model, 5).run(tokens, Pass()).logits
    assert (sparse - before).abs().max() > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("known", [False, True])
def test_token_by_token_it_goes_to_the_end_of_the_window_and_not_beyond(config, known):
    tiny = routed(Adopted(made(config), seq_len=LENGTH), 5).hf
    whole, parts = tiny(input_ids=TOKENS[:, :LENGTH], use_cache=False).logits, []
    cache = DynamicCache(config=tiny.config) if known else DynamicCache()
    for part in (TOKENS[:, :13], *TOKENS[:, 13:LENGTH].split(1, 1)):
        parts.append(tiny(input_ids=part, past_key_values=cache).logits)
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e-5, rtol=1e-4)
    said = f"^attention: {LENGTH + 1} tokens, the layers of this model have a window of {LENGTH}"
    with pytest.raises(ValueError, match=said):
        tiny(input_ids=TOKENS[:, LENGTH : LENGTH + 1], past_key_values=cache)
    with pytest.raises(ValueError, match=said):
        tiny(input_ids=TOKENS[:, : LENGTH + 1], use_cache=False)


def test_rows_longer_than_the_window_are_refused_before_anything_is_trained(config):
    for seq_len in (LENGTH + 1, None):
        with pytest.raises(ValueError, match=rf"never acts on rows of at most {LENGTH} tokens: give seq_len={LENGTH}"):
            Adopted(made(config), seq_len=seq_len)


def test_a_run_takes_its_own_length_which_changes_no_name_of_a_base(config, tmp_path):
    given = ["model=pretrained", f"model.path={saved(tmp_path / 'model', config)}"]
    spec = compose([*given, f"seq_len={LENGTH}"])
    assert len(sites_of(spec)) == 2 and "seq_len" not in base_of(spec, "a corpus").identity["model"]
    with pytest.raises(ValueError, match=f"at most {LENGTH} tokens"):
        sites_of(compose([*given, f"seq_len={LENGTH + 1}"]))
