"""What a plan leaves out because it cannot be, and which mistakes it names before anything is trained."""

from types import SimpleNamespace

import pytest
import torch

from dsa import compose
from dsa.backbones import Pass
from dsa.build import build_model
from dsa.judging.speed import peak_megabytes
from dsa.training.fits import memory_needed
from dsa.training.objective import language_model_loss
from study.studies import FAST, TWO, load, planned, plans_of


def test_a_budget_that_reaches_the_length_is_not_applicable_and_says_why(outputs):
    (plan,) = plans_of("name=x", "pattern=causal,local_global_64_128", "seq_len=64,512", "data=mqar", "model=mqar",
                       "exploratory=true", f"output_dir={outputs}")  # fmt: skip
    reasons = {(run.label, run.seq_len): run.reason for run in plan.runs if run.role == "condition"}
    assert "so attention is dense" in reasons["local_global_64_128", 64]
    assert reasons["local_global_64_128", 512] is None


def test_a_budget_without_room_for_a_block_is_not_applicable_and_says_why(outputs):
    (plan,) = plans_of("name=x", "indexer=block_mean", "indexer.unit=1,16,32", "selector.k=48", "pattern=causal",
                       "seq_len=128", "data=mqar", "model=mqar", "exploratory=true",
                       f"output_dir={outputs}")  # fmt: skip
    reasons = [run.reason for run in plan.runs if run.role == "condition"]
    no_room = "up to 31 keys are kept anyway: a budget of 48 has no room for a block of 32 tokens"
    assert [reason for reason in reasons if reason] == [no_room] and len(reasons) == 3


@pytest.mark.slow
def test_patterns_with_gaps_are_not_applicable_to_blocks_and_the_plan_says_why(outputs):
    (plan,) = plans_of("name=x", "indexer=qwen4_qsa,h1d8", "pattern=causal,strided,multi_head", "seq_len=512",
                       "data=mqar", "model=mqar", "exploratory=true", f"output_dir={outputs}")  # fmt: skip
    reasons = {run.label: run.reason for run in plan.runs if run.role == "condition" and run.reason}
    assert set(reasons) == {"qwen4_qsa-strided", "qwen4_qsa-multi_head"}
    assert all("its keys lie 4 tokens apart" in reason for reason in reasons.values())


def test_indexers_and_patterns_that_choose_no_entries_are_not_applicable_and_the_plan_says_why(outputs):
    (plan,) = plans_of("name=x", "model.kv=csa", "indexer=deepseek_v4_csa,h1d8", "pattern=causal,local_global",
                       "seq_len=512", "data=mqar", "exploratory=true", f"output_dir={outputs}")  # fmt: skip
    reasons = {run.label: run.reason for run in plan.runs if run.role == "condition"}
    assert reasons.pop("deepseek_v4_csa-causal") is None
    assert "give pattern=causal" in reasons.pop("deepseek_v4_csa-local_global")
    assert len(reasons) == 2 and all("indexer.unit = 1: with model.kv=csa" in reason for reason in reasons.values())


@pytest.mark.slow
def test_too_few_seeds_are_refused_unless_exploratory(outputs):
    given = ["study=optimal_indexer_config", "seq_len=64", f"output_dir={outputs}"]
    with pytest.raises(ValueError, match=r"3 contrasts .* Give 7 seeds"):
        plans_of(*given, "seed=range(0,6)")
    with pytest.raises(ValueError, match=r"10 comparisons .* Give 9 seeds"):
        plans_of("study=field_indexers", *given[1:], "seed=range(0,8)")
    (plan,) = plans_of(*given, "seed=range(0,2)", exploratory=True)
    assert plan.study.exploratory


@pytest.mark.slow
@pytest.mark.parametrize(
    ("yaml", "words"),
    [
        ({"colour": "red"}, "unknown key colour"),
        ({"judge": "swop"}, "judge = swop: give swap, val or both."),
        ({"finalists": 3}, "finalists = 3: chosen by swap and then trained jointly; give judge: both with it."),
        ({"judge": "both", "finalists": 0}, "finalists = 0: give a whole number from 1"),
        ({"baseline": "h9d9"}, "baseline = h9d9: no condition of study x; it has h1d8, h2d8."),
        ({"baseline": {"indexer": "h9d9"}}, "no condition of study x"),
        ({"seed": "range(5,5)"}, "seed = []: give whole numbers"),
        ({"seed": []}, "seed = []: give whole numbers"),
        ({"seed": [0, -1]}, "seed = [0, -1]: give whole numbers"),
        ({"indexer_seed": "a"}, "indexer_seed = ['a']: give whole numbers"),
        ({"margin": {"val_loss": -1}}, "margin.val_loss = -1: give a number above 0."),
        ({"margin": {"val_loss": "abc"}}, "margin.val_loss = abc: give a number above 0."),
        ({"margin": {"val_loss": float("nan")}}, "margin.val_loss = nan: give a number above 0."),
        ({"margin": {"loss": 0.01}}, "margin = loss: give val_loss, swap_val_loss, val_accuracy, swap_val_accuracy, "),
        ({"margin": 0.01}, "margin = 0.01: give key: value."),
        ({"hypothesis": {"claim": "it_works"}}, "hypothesis.claim = it_works: give some_condition_differs,"),
        ({"hypothesis": {"metric": "loss"}}, "hypothesis.metric = loss: give val_loss,"),
        ({"judge": "swap", "hypothesis": {"metric": "val_loss"}}, "judge = swap does none; give swap_val_loss"),
        ({"controls": ["nothing"]}, "controls: nothing is none of dense"),
        ({"conditions": [{"indexer": "h1d8"}, {"indexer": "h1d8"}]}, "two of them are labelled h1d8"),
        ({"conditions": {"indexer": []}}, "conditions: indexer lists nothing."),
        ({"judge": "swap", "common": {"recipe": "scratch"}}, "judge = swap: recipe.dense.steps = 0"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_yaml_is_named(yaml, words, outputs):
    with pytest.raises(ValueError) as error:
        planned(TWO | yaml, *FAST, "seq_len=64", f"output_dir={outputs}")
    assert words in str(error.value)
    assert not outputs.exists()


@pytest.mark.parametrize("seeds", ["seed=range(5,5)", "seed=[]"])
def test_no_seed_on_the_command_line_is_no_wish_for_those_of_the_yaml(seeds, outputs):
    with pytest.raises(ValueError, match="seed = "):
        planned(TWO, *FAST, seeds, f"output_dir={outputs}")


@pytest.mark.parametrize(("one", "two"), [("me", "me"), ("me", "you")])
def test_a_union_that_leads_back_to_itself_is_refused(one, two, outputs):
    yamls = {"me": {"union": [two]}, "you": {"union": ["me"]}}

    def with_unions(overrides):
        names = [override.removeprefix("study=") for override in overrides if override.startswith("study=")]
        cfg = load([override for override in overrides if not override.startswith("study=")])
        if names:
            cfg.plan = yamls[names[0]]
            cfg.hydra.runtime.choices.study = names[0]
        return cfg

    from dsa.study.options import Options
    from dsa.study.sweep import plan_all

    with pytest.raises(ValueError, match="is part of itself"):
        plan_all(with_unions([f"study={one}"]), [f"study={one}"], with_unions, Options())


@pytest.mark.slow
def test_models_that_a_machine_has_no_memory_for_are_not_applicable(outputs, monkeypatch):
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(total=2 * 2**30))
    (plan,) = plans_of("study=model_scaling", "seed=0", f"output_dir={outputs}", exploratory=True)
    reasons = {run.label: run.reason for run in plan.runs if run.role == "condition"}
    assert reasons["d256-h2d32"] is None
    assert reasons["d512-h2d32"] == "training needs about 3 GB, this machine has 2"
    assert "this machine has 2" in reasons["d1024-h4d64"]


@pytest.mark.slow
def test_the_memory_that_training_needs_is_foreseen_within_a_factor_of_two():
    spec = compose([*FAST[:2], "model.d_model=128", "seq_len=256", "indexer=h2d32", "dtype=fp32", "ops=blocked"])
    model = build_model(spec, 256)
    optimizer = spec.optimizer.make()([{"params": list(model.parameters()), "lr": 1e-3}])
    tokens = torch.zeros(spec.data.node["batch_size"], spec.seq_len, dtype=torch.long)

    def step():
        logits, losses = model.run(tokens, Pass(teach=True))
        (language_model_loss(logits, tokens) + losses["indexer"]).backward()
        optimizer.step()

    measured = peak_megabytes(step, torch.device("cpu")) + sum(p.numel() for p in model.parameters()) * 4 / 2**20
    assert 0.5 < memory_needed(spec) / 2**20 / measured < 2
