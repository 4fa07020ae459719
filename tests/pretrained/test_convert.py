"""A GGUF file becomes a folder that transformers reads, whoever asks first."""

import gguf
import numpy as np
import pytest
import torch

from dsa.pretrained.files import convert

WIDTH, HIDDEN, WORDS = 8, 16, ["<unk>", "<s>", "</s>", "a", "b", "ab"]


def tiny_gguf(path):
    """A Llama of one layer, as llama.cpp would write it; its weights by name."""
    draw = np.random.default_rng(0)
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(32)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // 2)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(WORDS))
    writer.add_tokenizer_model("llama")
    writer.add_token_list(WORDS)
    writer.add_token_scores([0.0, 0.0, 0.0, -1.0, -1.0, -0.5])
    writer.add_token_types([2, 3, 3, 1, 1, 1])
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    shapes = {"token_embd": (len(WORDS), WIDTH), "output": (len(WORDS), WIDTH), "output_norm": (WIDTH,)}
    block = dict.fromkeys(("attn_q", "attn_k", "attn_v", "attn_output"), (WIDTH, WIDTH))
    block |= {"ffn_gate": (HIDDEN, WIDTH), "ffn_up": (HIDDEN, WIDTH), "ffn_down": (WIDTH, HIDDEN)}
    block |= {"attn_norm": (WIDTH,), "ffn_norm": (WIDTH,)}
    shapes |= {f"blk.0.{name}": shape for name, shape in block.items()}
    weights = {name: draw.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    for name, weight in weights.items():
        writer.add_tensor(f"{name}.weight", weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return weights


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_file_is_read_with_its_weights_even_where_sizes_alone_are_asked_for(device, tmp_path):
    from transformers import AutoModelForCausalLM

    weights = tiny_gguf(tmp_path / "tiny.gguf")
    with torch.device(device):
        convert(tmp_path / "tiny.gguf", tmp_path / "folder")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "folder")
    assert torch.equal(model.model.norm.weight.detach(), torch.from_numpy(weights["output_norm"]))
