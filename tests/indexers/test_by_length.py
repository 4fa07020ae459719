"""`indexer=by_length` becomes the indexer that a verdict recommends, before anything has a name."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from conftest import QUIET, SMALL
from omegaconf import OmegaConf
from study.studies import plans_of

from dsa import compose, train
from dsa.analysis.judgement.best import Best
from dsa.analysis.output.files import SCHEMA
from dsa.graph import graph_of, run_id

TINY = ["indexer=h1d8", "indexer.weight=positive"]  # what the study recommends at 64
SWAP = [*SMALL, *QUIET, "recipe=judge", "pattern=causal", "selector.k=8"]


def answer(seq_len, recommended, shown=True, context=""):
    """What a verdict says of a length."""
    sentence = f"At {seq_len}: {recommended}."
    return asdict(
        Best(seq_len, context, "val_loss", "small", 1.0, None, 5, (), (), recommended, (), None, shown, sentence)
    )


def study(folder: Path, answers, label="small", overrides=TINY, indexer=None) -> str:
    """A study's folder with one run of a condition at 64, and the override that names its verdict."""
    place = folder / "found"
    run = place / "small-L64"
    run.mkdir(parents=True)
    spec = compose([*SMALL, *overrides])
    OmegaConf.save(OmegaConf.create(spec.content), run / "config.yaml")
    condition = spec.condition | ({} if indexer is None else {"indexer": indexer})
    known = {"run_id": run.name, "status": "finished", "study": "found", "condition": condition, "schema": 2}
    rest = {"model": "tiny", "data": "mqar", "recipe": "continue", "seq_len": 64, "seed": 0}
    (run / "result.json").write_text(json.dumps(known | rest))
    planned = {"label": label, "seq_len": 64, "run_id": run.name, "study": "found"}
    (place / "study.json").write_text(json.dumps({"name": "found", "runs": [planned]}))
    (place / "verdict.json").write_text(json.dumps({"schema": SCHEMA, "best": answers}))
    return f"indexer.verdict={place / 'verdict.json'}"


def test_it_is_the_recommended_indexer_in_name_settings_and_every_hash(tmp_path):
    verdict = study(tmp_path, [answer(64, "small"), answer(128, "other")])
    chosen, direct = compose([*SWAP, "indexer=by_length", verdict]), compose([*SWAP, *TINY])
    assert chosen.indexer == direct.indexer
    assert chosen.content == direct.content
    graphs = [graph_of(spec, "corpus") for spec in (chosen, direct)]
    assert graphs[0] == graphs[1]
    assert run_id(chosen, graphs[0]) == run_id(direct, graphs[1])


def test_an_option_as_shipped_is_named_as_it_is(tmp_path):
    verdict = study(tmp_path, [answer(64, "small")], overrides=["indexer=h4d8"])
    spec = compose([*SWAP, "indexer=by_length", verdict])
    assert spec.indexer.option == "h4d8"
    assert spec.content["overridden"] == compose([*SWAP, "indexer=h4d8"]).content["overridden"]


@pytest.mark.slow
def test_a_study_plans_it_as_that_indexer(tmp_path):
    verdict = study(tmp_path, [answer(64, "small")])
    around = [*SMALL, "logger=csv", "pattern=causal", "selector.k=8", "judge=swap", f"output_dir={tmp_path}"]
    chosen, direct = (
        [run for run in plan.applicable if run.role == "condition"]
        for plan in (
            plans_of(*around, "name=chosen", "indexer=by_length", verdict)[0],
            plans_of(*around, "name=direct", *TINY)[0],
        )
    )
    assert chosen[0].hash == direct[0].hash
    assert chosen[0].run_id == direct[0].run_id


@pytest.mark.slow
def test_what_was_trained_as_that_indexer_is_found_again(tmp_path, outputs):
    verdict = study(tmp_path, [answer(64, "small")])
    steps = ["recipe.dense.steps=2", "recipe.warmup.steps=2", f"output_dir={outputs}"]
    direct = train(compose([*SWAP, *TINY, *steps]))
    again = train(compose([*SWAP, "indexer=by_length", verdict, *steps]))
    assert again.run_id == direct.run_id
    assert len(list((outputs / "indexers").glob("h1d8*"))) == 1


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ([answer(128, "small")], "it says nothing of seq_len = 64; its lengths: 128."),
        ([answer(64, None)], "it recommends nothing. At 64: None."),
        (
            [answer(64, "small", shown=False)],
            "what it recommends is not shown to lose nothing. .* Give indexer.accept=best",
        ),
        ([answer(64, "small", context="a"), answer(64, "small", context="b")], r"several contexts at 64 \(a, b\)"),
        ([answer(64, "gone")], "it recommends gone at 64, of which no finished run"),
    ],
)
def test_what_it_cannot_take_is_one_sentence(tmp_path, answers, message):
    with pytest.raises(ValueError, match=f"indexer.verdict = .*{message}"):
        compose([*SWAP, "indexer=by_length", study(tmp_path, answers)])


def test_what_is_only_the_best_measured_is_taken_where_that_is_accepted(tmp_path):
    verdict = study(tmp_path, [answer(64, "small", shown=False)])
    assert compose([*SWAP, "indexer=by_length", verdict, "indexer.accept=best"]).indexer.option == "h1d8~"


def test_a_condition_without_an_indexer_is_refused(tmp_path):
    verdict = study(tmp_path, [answer(64, "small")], indexer="none")
    with pytest.raises(ValueError, match="it recommends small at 64, which has no indexer"):
        compose([*SWAP, "indexer=by_length", verdict])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        ("{", "is no JSON"),
        ("[]", "holds no study's verdict"),
        ('{"schema": 1, "best": []}', "schema 1; give a verdict.json of schema 2"),
    ],
)
def test_a_file_that_is_no_verdict_is_named(tmp_path, content, message):
    path = tmp_path / "verdict.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ValueError, match=message):
        compose([*SWAP, "indexer=by_length", f"indexer.verdict={path}"])


def test_its_settings_are_checked():
    with pytest.raises(ValueError, match=r"indexer\.verdict = null: give the path"):
        compose(["indexer=by_length"])
    with pytest.raises(ValueError, match=r"indexer\.accept = all: give shown or best"):
        compose(["indexer=by_length", "indexer.verdict=x", "indexer.accept=all"])
