"""What a variant of one's own answers wrongly is said in a sentence before anything is trained; the others go on."""

import re

import pytest
from conftest import QUIET, SMALL
from study.studies import TINY, drive, planned

from dsa import compose
from dsa.build import build_data
from dsa.spec import Spec
from dsa.training.errors import RunFailed
from dsa.training.execute import train
from dsa.training.rehearsal import rehearse, rehearse_budget, rehearse_indexer
from dsa.training.variants import VariantFault

ENTROPY = "selector=adaptive_entropy"
WRONG = [
    ("indexer", "FlatQueries", "score: queries is a tensor [1, 64, 2, 8] of float32; give a tensor "
     "[batch 1, group, time 64, head, dim] of float32."),
    ("indexer", "HalfKeys", "score: keys is a tensor [1, 1, 64, 8] of float16; give a tensor "
     "[batch 1, keygroup, entry, dim 8] of float32."),
    ("indexer", "ShortWeights", "score: weights is a tensor [1, 1, 63, 2] of float32; give a tensor "
     "[batch 1, group 1, time 64, head 2] of float32."),
    ("indexer", "ThreeGroups", "score: queries is 3 groups; give a number of groups that divides 2 heads."),
    ("indexer", "FewKeys", "score: keys is 63 units; give 64 units of 1 tokens, for 64 tokens."),
    ("indexer", "NoFeatures", "score: it gives a tensor [1, 64, 16] of float32; give dsa.ops.IndexFeatures("),
    ("pattern", "TensorZones", "zones: it gives a tensor [8, 8] of float32; give a tuple of dsa.ops.Zone, or one such "
     "tuple for each group of heads."),
    ("pattern", "ListedZones", "zones: it gives a tuple that holds an int; give a tuple of dsa.ops.Zone, or one such "),
    ("pattern", "NoZones", "zones: it gives a tuple that holds an empty tuple; give a tuple of dsa.ops.Zone, or one "),
    ("pattern", "FutureZones", "zones: zone.last = -1: a key after its query would be the future; give 0 or more."),
    ("pattern", "RaisingZones", "zones: it raises ZeroDivisionError: integer division or modulo by zero (odd.py, "),
    ("pattern", "RealBudget", "own_budget: it gives a tensor [1, 1, 64] of float32; give a tensor [batch 1, group 1, "
     "time 64] of int64 or int32."),
    ("pattern", "RaisingMade", "__init__: it raises RuntimeError: no licence (odd.py, line "),
    ("selector", "FlatLimit", "limit: it gives a tensor [1, 64] of int64; give a tensor [batch 1, group 1, time 64] of "
     "int64 or int32."),
    ("selector", "LateLimit", "limit: it gives a tensor [1, 1, 64] of float32; give a tensor [batch 1, group 1, time "),
    ("selector", "NumberLimit", "limit: it gives an int; give a tensor [batch 1, group 1, time 64] of int64 or int32."),
    ("selector", "WideTrim", "trim: it gives a tensor "),
    ("selector", "NoScorer", "scorer: it gives a tensor [1, 1, 64, 2, 8] of float32; give what ranks keys, "),
    ("precision", "TensorCast", "cast: it gives a tensor [1, 1, 64, 2, 8] of float32; give the dsa.ops.IndexFeatures "),
    ("precision", "NarrowCast", "cast: keys is a tensor [1, 1, 64, 4] of float32; give a tensor [batch 1, keygroup 1, "
     "entry 64, dim 8] of float32."),
]  # fmt: skip


def spec_of(*overrides: str) -> Spec:
    return compose([*SMALL, *QUIET, "pattern=causal", "selector.k=8", "indexer=h2d8", "ops=blocked", *overrides])


def wrong(slot: str, name: str) -> list[str]:
    """The command line that puts a wrong variant into its slot."""
    changed = ["selector=adaptive_entropy", "~selector.k"] if name == "WideTrim" else []
    return [*changed, f"{slot}._target_=variants.odd.{name}", "allow_targets=[variants]"]


def with_wrong(slot: str, name: str) -> Spec:
    given = wrong(slot, name)
    if ENTROPY in given:
        return compose([*SMALL, *QUIET, "pattern=causal", "indexer=h2d8", "ops=blocked", ENTROPY, *given[2:]])
    return spec_of(*given)


@pytest.mark.parametrize(("slot", "name", "said"), WRONG, ids=[name for _, name, _ in WRONG])
def test_a_rehearsal_names_class_and_method_what_it_gave_and_what_is_wanted(slot, name, said):
    spec = with_wrong(slot, name)
    with pytest.raises(VariantFault, match=re.escape(f"variants.odd.{name}.{said}")):
        rehearse(spec, build_data(spec))
    if name not in ("WideTrim", "NoScorer"):  # both are asked where there are scores
        with pytest.raises(VariantFault, match=re.escape(f"variants.odd.{name}.{said}")):
            rehearse_budget(spec) if slot in ("pattern", "selector") else rehearse_indexer(spec)


def test_a_run_that_would_only_be_judged_is_rehearsed_too(outputs, monkeypatch):
    met = []
    monkeypatch.setattr("dsa.training.execute.rehearse", lambda spec, data: met.append(spec.pattern.option))
    monkeypatch.setattr("dsa.training.execute.work", lambda *given: pytest.skip("not reached"))
    monkeypatch.setattr("dsa.training.run.Run.untrained", lambda run: False)
    monkeypatch.setattr("dsa.training.execute.begin", lambda run: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        train(spec_of("judge=swap", f"output_dir={outputs}"))
    assert met == ["causal"]


def test_a_run_fails_with_that_sentence_before_it_trains(outputs):
    with pytest.raises(RunFailed, match=r"^variants\.odd\.RaisingZones\.zones: it raises ZeroDivisionError"):
        train(spec_of(f"output_dir={outputs}", *wrong("pattern", "RaisingZones")))
    assert not (outputs / "bases").exists()


@pytest.mark.slow
def test_a_variant_that_answers_wrongly_fails_alone_in_a_sweep_and_the_others_go_on(outputs):
    own = {name: {"pattern._target_": f"variants.odd.{name}"} for name in ("RaisingZones", "TensorZones")}
    own |= {"HalfKeys": {"indexer._target_": "variants.odd.HalfKeys"}}
    conditions = [{"name": "good"}, *({"name": name} | changed for name, changed in own.items())]
    yaml = {"judge": "swap", "conditions": conditions, "controls": [], "seed": [0]}
    plan = planned(yaml, *TINY, "indexer=h1d8", "allow_targets=[variants]", f"output_dir={outputs}")
    reasons = {run.label: run.reason for run in plan.runs if run.reason}
    assert reasons.keys() == {"RaisingZones", "TensorZones"}, "the pattern is asked before anything is trained"
    assert reasons["RaisingZones"].startswith("variants.odd.RaisingZones.zones: it raises ZeroDivisionError")
    assert reasons["TensorZones"].startswith("variants.odd.TensorZones.zones: it gives a tensor [8, 8] of float32")
    ((run, category, reason),) = (outcome := drive([plan], outputs)).failed
    assert (run.label, category) == ("HalfKeys", "config")
    assert "variants.odd.HalfKeys.score: keys is a tensor [1, 1, 64, 8] of float16" in reason
    assert [run.label for run in outcome.done] == ["good"]
