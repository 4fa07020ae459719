"""What is made of parts of other code that were kept (stale=keep) does not pass for the work of today's code."""

import json

import pytest
from conftest import QUIET, SMALL

from dsa import compose, train
from dsa.artifacts.store import RECORD
from dsa.build import build_data
from dsa.training.run import Run

STEPS = ["recipe.dense.steps=2", "recipe.warmup.steps=2", "judge=swap", "seq_len=32", "dtype=fp32"]
K = "selector.k=8"


@pytest.fixture
def run(outputs):
    """Plans and trains the run, with other settings beside its own."""

    def made(*overrides, trained=True):
        spec = compose([*SMALL, *QUIET, *STEPS, f"output_dir={outputs}", *overrides])
        result = train(spec) if trained else None
        return result, Run(spec, build_data(spec))

    return made


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["base", "indexers", "swap", "dense"])
def test_a_run_on_parts_that_were_kept_is_stale_and_so_is_what_it_makes(run, kind):
    _, first = run(K)
    need = getattr(first.graph, kind)
    path = first.store.judgement_file(need) if need.kind == "judgement" else first.store.folder(need) / RECORD
    path.write_text(json.dumps(json.loads(path.read_text()) | {"code": "of another day"}))
    changed = ["indexer=h2d8"] if kind == "base" else ["name=other"]
    kept, again = run(K, "stale=keep", *changed)
    assert kept.provenance["code"] != again.graph.code
    _, strict = run(K, *changed, trained=False)
    assert strict.folder == again.folder and strict.finished() is None
    if kind == "base":
        assert strict.store.find(strict.graph.indexers) is None, "they learned on a base of other code"
        assert again.store.find(again.graph.indexers) is not None


@pytest.mark.slow
@pytest.mark.parametrize("own", [[K], [K, "judge=val", "recipe.sparse.steps=2"], ["selector=dense"]])
def test_where_nothing_is_of_other_code_keeping_changes_nothing(run, own):
    result, first = run("stale=keep", *own)
    assert result.provenance["code"] == first.graph.code
    assert run(*own, trained=False)[1].finished() is not None
