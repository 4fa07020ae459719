"""Tiny random models of transformers, one of each architecture that the tests speak for."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (  # one list, each its own configuration
    AutoModelForCausalLM,
    DynamicCache,
    Gemma2Config,
    Gemma3TextConfig,
    Glm4Config,
    GPTNeoXConfig,
    GptOssConfig,
    GraniteConfig,
    Llama4TextConfig,
    LlamaConfig,
    MistralConfig,
    Olmo2Config,
    Phi3Config,
    Qwen2Config,
    Qwen3Config,
)
from transformers.utils import logging

from dsa.backbones import Router
from dsa.backbones.initial import draw_indexer
from dsa.indexers import LightningIndexer
from dsa.patterns import Causal
from dsa.precision import Exact
from dsa.selectors import TopK

logging.set_verbosity_error()
logging.disable_progress_bar()

SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "eos_token_id": 0,
    "bos_token_id": 0,
    "pad_token_id": 0,
}
GROUPED = SIZES | {"num_key_value_heads": 2}
NARROW = GROUPED | {"head_dim": 8}
WINDOWS = {"sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"]}

CONFIGS = {
    "llama": lambda: LlamaConfig(**GROUPED),
    "qwen2": lambda: Qwen2Config(**GROUPED),
    "qwen3": lambda: Qwen3Config(**NARROW),
    "mistral": lambda: MistralConfig(**GROUPED, sliding_window=None),
    "gemma3": lambda: Gemma3TextConfig(**NARROW, **WINDOWS, query_pre_attn_scalar=8),
    "gemma2": lambda: Gemma2Config(**NARROW, query_pre_attn_scalar=8, sliding_window=16, attn_logit_softcapping=5.0),
    "phi3": lambda: Phi3Config(**GROUPED),
    "gpt_neox": lambda: GPTNeoXConfig(**SIZES),
    "glm4": lambda: Glm4Config(**NARROW),
    "olmo2": lambda: Olmo2Config(**GROUPED),
    "granite": lambda: GraniteConfig(**GROUPED, attention_multiplier=0.25),
    "gpt_oss": lambda: GptOssConfig(**NARROW, **WINDOWS, num_local_experts=2, num_experts_per_tok=1),
    "llama4": lambda: Llama4TextConfig(
        **NARROW, attention_chunk_size=16, no_rope_layers=[1, 0], intermediate_size_mlp=64, num_local_experts=2
    ),
}


LATENT = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 8,
          "num_key_value_heads": 4, "first_k_dense_replace": 2}  # fmt: skip
"""Of models whose queries, keys and values come from latents of low rank (DeepSeek's MLA)."""

WORDS = "def return import self class for in if else not and or is None the a of to"


def made(config, seed=0):
    """A model with random weights large enough that its attention is not uniform."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, experts_implementation="batched_mm").eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith(("q_proj.weight", "k_proj.weight", "qkv_proj.weight", "query_key_value.weight")):
                weight.mul_(8)
            if name.endswith("sinks"):
                weight.normal_()
    return model


def lightning(site):
    return LightningIndexer(site.width, heads=2, dim=8)


def routed(model, k, backend="auto", every=1, make=lightning):
    """A model whose sites keep k keys of each query, `every` of them those that the first one chose."""
    routers = []
    for site in model.sites[::every]:
        indexer = make(site)
        draw_indexer(indexer, 0, site.index)
        routers.append(Router(indexer, Causal(64), TopK(k), Exact(), site.index, backend))
    model.attach(routers, [site.index // every for site in model.sites])
    return model


def saved(folder: Path, config, seed=0, tokenizer=False) -> Path:
    """A tiny model as files; with a byte-level tokenizer of 64 tokens where it is wanted."""
    made(config, seed).save_pretrained(folder)
    if tokenizer:
        engine = Tokenizer(models.BPE(unk_token="<end>"))  # 64 tokens: what is no letter of this alphabet is unknown
        engine.pre_tokenizer = pre_tokenizers.Whitespace()
        engine.decoder = decoders.Fuse()
        trainer = trainers.BpeTrainer(vocab_size=64, special_tokens=["<end>"], limit_alphabet=60, show_progress=False)
        engine.train_from_iterator([WORDS] * 4, trainer)
        engine.save(str(folder / "tokenizer.json"))
    return folder


def little_text(folder: Path) -> Path:
    """Files of text that such a tokenizer reads, in a folder of their own."""
    place = folder / "text"
    place.mkdir()
    for number in range(12):
        words = [f"def {name}(self): return None\n" for name in "import class for in if else not and or is".split()]
        (place / f"{number}.txt").write_text("".join(words[number % 5 :] * 40))
    return place


def in_parts(model, tokens):
    """Logits of rows of 48 tokens that come in parts, with transformers' own cache, the last ones one by one."""
    parts, past = [], DynamicCache()
    for part in tokens.tensor_split([13, 15, *range(30, tokens.shape[1])], 1):
        parts.append(model.hf(input_ids=part, past_key_values=past, use_cache=True).logits)
    return torch.cat(parts, 1)


def left_padding_changes_nothing(model, tokens):
    """Whether what two rows generate is what each generates alone, the first one padded."""
    mask = torch.ones_like(tokens)
    mask[0, :9] = 0
    settings = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    padded = model.hf.generate(tokens, attention_mask=mask, **settings)
    alone = model.hf.generate(tokens[:1, 9:], **settings)[0], model.hf.generate(tokens[1:], use_cache=False, **settings)
    return padded[0, 9:].equal(alone[0]) and padded[1:].equal(alone[1])


def forgotten(hook):
    """Whether a hook holds nothing of a pass."""
    layers = all(layer.hidden is None and layer.past is None and layer.latent is None for layer in hook.layers)
    return layers and hook.how is None and not hook.parts and not hook.losses
