"""A claim is judged by its own rule, whatever else a study found."""

from dataclasses import replace

import numpy as np
import pytest
from made_up import made_up, meta_of, result_of

from dsa.analysis.inputs.prepared import Prepared, assemble
from dsa.analysis.judgement.analysis import analyse

pytestmark = pytest.mark.usefixtures("few_draws")
LENGTHS = (64, 128)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("claim", "losses", "answer"),
    [
        ("some_condition_differs", {"a": 1.2, "b": 1.2}, "not supported"),
        ("no_quality_loss", {"a": 1.2, "b": 1.2}, "supported"),
        ("no_quality_loss", {"a": 1.2, "b": {64: 1.2, 128: 1.3}}, "not supported"),
        ("order_depends_on_length", {"a": 1.2, "b": {64: 1.1, 128: 1.3}}, "supported"),
        ("order_depends_on_length", {"a": 1.2, "b": {64: 1.1, 128: 1.0}}, "not supported"),
        ("order_depends_on_length", {"a": 1.2, "b": {64: 1.3, 128: 1.4}}, "not supported"),
        ("order_depends_on_length", {"a": 1.2, "b": {64: 1.1, 128: 1.2}}, "inconclusive"),
        ("on_pareto_front", {"a": 1.2, "b": 1.1}, "supported"),
        ("on_pareto_front", {"a": 1.2, "b": 1.3, "c": 1.1}, "not supported"),
        ("cannot_discriminate", {"a": 1.2, "b": 1.1}, "not supported"),
        ("of_something_else", {"a": 1.2, "b": 1.1}, "inconclusive"),
    ],
)
def test_each_claim_is_judged_by_its_own_rule(claim, losses, answer):
    named_ = {"conditions": ["b"]} if "front" in claim or "quality" in claim else {}
    done = analyse(made_up(losses, lengths=LENGTHS, seeds=16, hypothesis={"claim": claim, **named_}))
    assert done.answer == answer, done.sentence
    assert done.sentence


@pytest.mark.slow
def test_a_claim_of_no_loss_waits_for_every_length():
    def each(run, result):
        return None if run["label"] == "b" and run["seq_len"] == 128 else result

    done = analyse(made_up({"a": 1.2, "b": 1.2}, lengths=LENGTHS, each=each, hypothesis={"claim": "no_quality_loss"}))
    assert done.answer == "inconclusive"
    assert "b at 128 has no result" in done.sentence


@pytest.mark.slow
@pytest.mark.parametrize(
    ("claim", "losses", "told"),
    [
        ({"claim": "some_condition_differs"}, {"a": 1.2, "b": 1.2}, "nor all to equal it"),
        ({"claim": "on_pareto_front", "conditions": ["b"]}, {"a": 1.2, "b": 1.1}, "b at 128 has no result"),
        ({"claim": "order_depends_on_length"}, {"a": 1.2, "b": 1.1, "c": 1.0}, "Not compared at every length: a and b"),
    ],
)
def test_a_claim_about_every_length_waits_for_every_length(claim, losses, told):
    def each(run, result):
        return None if run["label"] == "b" and run["seq_len"] == 128 else result

    whole = analyse(made_up(losses, lengths=LENGTHS, seeds=16, hypothesis=claim))
    assert whole.answer in ("supported", "not supported")
    done = analyse(made_up(losses, lengths=LENGTHS, seeds=16, each=each, hypothesis=claim))
    assert done.answer == "inconclusive" and told in done.sentence


def sizes(reverse: bool, seeds: int = 8) -> Prepared:
    """Two indexers on three widths, each width with controls of its own."""
    layers = {f"d{d}-{i}": {"indexer": i, "model.d_model": d} for d in (64, 128, 256) for i in ("big", "small")}
    meta = meta_of(layers, seeds=seeds, hypothesis={"claim": "order_depends_on_size"}, baseline="d64-big")
    controls = [(kind, d) for d in (64, 128, 256) for kind in ("dense", "random", "window")]
    runs = [run | {"context": run["label"][1:].split("-")[0]} for run in meta.runs if run["label"] in layers]
    runs += [
        {
            "label": f"{kind}-{d}",
            "role": "control",
            "context": str(d),
            "seq_len": 64,
            "seed": s,
            "run_id": f"{kind}-{d}-{s}",
        }
        for kind, d in controls
        for s in range(seeds)
    ]
    draw, results = np.random.default_rng(0), []
    for run in runs:
        kind, _, rest = run["label"].partition("-")
        width = int(rest if kind in ("dense", "random", "window") else kind[1:])
        gain = -0.1 if reverse and width == 256 else 0.1
        true = {"dense": 1.0, "random": 2.0, "window": 1.5}.get(kind, 1.2 + gain * (rest == "small"))
        at = 1.0 + run["seed"] / 10
        result = result_of(run, true * at + draw.normal(0, 0.002), at, 1.5 * at)
        results.append(result | {"params": {"total": width**2 + 10, "indexer": 10}})
    return assemble(replace(meta, runs=runs), results)


@pytest.mark.slow
@pytest.mark.parametrize(("reverse", "answer"), [(True, "supported"), (False, "not supported")])
def test_conditions_on_several_models_are_compared_within_each(reverse, answer):
    done = analyse(sizes(reverse))
    assert done.answer == answer, done.sentence
    found = {(c.label, c.reference) for c in done.comparisons if c.metric == "val_loss"}
    assert found == {(f"d{d}-small", f"d{d}-big") for d in (64, 128, 256)}
    assert {f.along for f in done.scaling} == {"model parameters"}
