"""lm-evaluation-harness takes a model with a run's sparse attention as any other, and measures what it says."""

import json

import pytest
import torch

pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed: pip install lm-eval")
pytest.importorskip("transformers", reason="the extra dsa[pretrained] is not installed")
import lm_eval
from backbones.tiny_models import CONFIGS, WORDS, saved
from conftest import QUIET
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

import dsa

pytestmark = pytest.mark.slow
NAMES = WORDS.split()
ROWS = [
    {"question": " ".join(NAMES[i:] + NAMES[:i]) * 2, "choices": [f" {NAMES[i]}", f" {NAMES[i - 1]} {NAMES[i - 2]}"]}
    for i in range(8)
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("model") / "tiny", CONFIGS["llama"](), tokenizer=True)


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory):
    """A run whose queries see the six keys that its indexers choose."""
    place = tmp_path_factory.mktemp("run")
    for number in range(12):
        (place / f"{number}.txt").write_text(" ".join(NAMES[number:] + NAMES[:number]) * 40)
    return dsa.train(dsa.compose([
        "model=pretrained", f"model.path={folder}", "data=text_model", f"data.path={place}/*.txt",
        f"cache_dir={place}", "indexer=h2d8", "pattern=causal", "selector.k=6", "seq_len=48", "recipe.warmup.steps=2",
        "dtype=fp32", f"output_dir={place / 'outputs'}", *QUIET,
    ]))  # fmt: skip


@pytest.fixture
def words(tmp_path):
    """A task of local files: which of two continuations is likelier."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(row | {"answer": 0}) + "\n" for row in ROWS))
    (tmp_path / "words.yaml").write_text(f"""task: words
dataset_path: json
dataset_kwargs: {{data_files: {{test: {rows}}}, cache_dir: {tmp_path / "cache"}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: answer
target_delimiter: ""
metric_list: [{{metric: acc}}]
""")
    return TaskManager(include_path=str(tmp_path), include_defaults=False)


def measured(model, tokenizer, tasks):
    """The log-likelihoods of all choices, as the harness finds them."""
    harness = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=4)
    found = lm_eval.simple_evaluate(model=harness, tasks=["words"], task_manager=tasks, bootstrap_iters=0)
    assert 0 <= found["results"]["words"]["acc,none"] <= 1
    return [each[0] for sample in found["samples"]["words"] for each in sample["filtered_resps"]]


@torch.no_grad()
def spelled_out(model, tokenizer):
    """The same, text by text."""
    out = []
    for row in ROWS:
        for choice in row["choices"]:
            context, whole = (tokenizer(text)["input_ids"] for text in (row["question"], row["question"] + choice))
            logits = model(torch.tensor([whole]), use_cache=False).logits[0].log_softmax(-1)
            out.append(sum(float(logits[t - 1, whole[t]]) for t in range(len(context), len(whole))))
    return out


def test_the_harness_measures_the_selection_and_after_detaching_the_model_as_it_was(folder, run, words):
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), eos_token="<end>", pad_token="<end>"
    )
    dense = measured(model, tokenizer, words)
    sparse = measured(dsa.attach(model, run.folder), tokenizer, words)
    assert sparse == pytest.approx(spelled_out(model, tokenizer), abs=1e-3)
    assert max(abs(a - b) for a, b in zip(sparse, dense, strict=True)) > 1e-2
    assert measured(dsa.detach(model), tokenizer, words) == pytest.approx(dense, abs=1e-3)
