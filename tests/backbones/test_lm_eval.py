"""lm-evaluation-harness takes a model with routers as it takes any of transformers, and measures what it computes."""

import json
import math

import pytest
import torch

from dsa.backbones import Router
from dsa.backbones.pretrained import Pretrained
from dsa.data import BPETokenizer
from dsa.patterns import Causal
from dsa.precision import Exact
from dsa.selectors import Window

lm_eval = pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed: pip install lm-eval")
pytestmark = pytest.mark.slow
QUESTIONS = [
    {"question": f"{i} and {j} make", "choices": [f" {i + j}", f" {i + j + 1}"]} for i in range(5) for j in (2, 7)
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A tiny Llama with random weights and a tokenizer of its own, saved as models are saved."""
    import transformers

    folder = tmp_path_factory.mktemp("llama")
    learned = BPETokenizer(300)
    learned.fit([json.dumps(QUESTIONS)])
    (folder / "tokenizer.json").write_text(learned.state())
    transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), eos_token="\0", pad_token="\0"
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=300, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128, eos_token_id=0, bos_token_id=0, initializer_range=0.5,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def backbone(folder, k=None):
    """The model; with the nearest k keys of each query, if a number is given."""
    out = Pretrained(300, str(folder))
    if k is not None:
        out.attach([Router(None, Causal(k), Window(), Exact(), site.index, "auto") for site in out.sites])
    return out


def measured(model, folder, tmp_path):
    """What the harness finds on a task of local files: accuracy, and each choice's log-likelihood."""
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager
    from transformers import AutoTokenizer

    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(row | {"answer": 0}) + "\n" for row in QUESTIONS))
    (tmp_path / "sums.yaml").write_text(
        f"""task: sums
dataset_path: json
dataset_kwargs: {{data_files: {{test: {rows}}}, cache_dir: {tmp_path / "cache"}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: answer
target_delimiter: ""
metric_list: [{{metric: acc}}]
"""
    )
    tasks = TaskManager(include_path=str(tmp_path), include_defaults=False)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    found = lm_eval.simple_evaluate(
        model=HFLM(pretrained=model.hf, tokenizer=tokenizer, batch_size=4), tasks=["sums"], task_manager=tasks,
        bootstrap_iters=0,
    )  # fmt: skip
    likelihoods = [each[0] for sample in found["samples"]["sums"] for each in sample["filtered_resps"]]
    return found["results"]["sums"]["acc,none"], torch.tensor(likelihoods, dtype=torch.float64)


def test_the_harness_measures_the_selection_and_with_every_key_the_model_as_it_was(model, tmp_path):
    plain, dense = measured(backbone(model), model, tmp_path)
    every, same = measured(backbone(model, 128), model, tmp_path)
    _, sparse = measured(backbone(model, 2), model, tmp_path)
    torch.testing.assert_close(same, dense, atol=1e-4, rtol=0)
    assert every == plain and 0 <= plain <= 1
    assert math.isfinite(float(sparse.sum())) and (sparse - dense).abs().max() > 0.01
