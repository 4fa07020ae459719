"""A text has its own name wherever runs, conditions and controls are named; no hash depends on it."""

import pytest
from conftest import QUIET, SMALL

from dsa import compose
from dsa.build import build_data
from dsa.graph import graph_of, run_id
from dsa.spec import Spec
from dsa.training.assemble import blank
from dsa.training.dashboard import Dashboard, flat_config
from study.studies import plans_of

NO_DATA = [one for one in SMALL if one != "data=mqar"]


@pytest.fixture
def library(tmp_path):
    """A folder of two texts, which is itself a third."""
    folder = tmp_path / "library"
    folder.mkdir()
    for name in ("emma", "ulysses"):
        folder.joinpath(f"{name}.txt").write_text("".join(f"{name} says line {i}. " for i in range(500)))
    return folder


def spec_on(path, outputs, data="text") -> Spec:
    given = [*NO_DATA, *QUIET, f"data={data}", f"data.path={path}", f"output_dir={outputs}"]
    return compose([*given, f"cache_dir={outputs}"])


@pytest.mark.parametrize(
    ("place", "data", "name"),
    [
        ("emma.txt", "text", "emma"),
        ("emma.txt", "text_bpe", "emma-bpe2048"),
        ("", "text", "library"),
        ("*.txt", "text", "library"),
        ("ulysses.txt", "text", "ulysses"),
    ],
)
def test_a_run_is_named_by_its_text(place, data, name, library, outputs):
    spec = spec_on(library / place, outputs, data)
    prepared = build_data(spec)
    graph = graph_of(spec, prepared.fingerprint)
    run = run_id(spec, graph)
    assert f"-{name}-L64-" in run
    assert "text~" not in run
    assert f"-{name}-L64-" in graph.base.name
    assert blank(spec, graph, outputs / run).data == name
    assert flat_config(spec, {})["data"] == name
    assert f"data:{name}" in Dashboard(spec, run, "group", "run").identity([], False)["tags"]


def test_the_place_of_a_text_changes_its_name_and_no_hash(library, outputs):
    other = library.parent / "copy.txt"
    other.write_text((library / "emma.txt").read_text())
    one, two = (spec_on(path, outputs) for path in (library / "emma.txt", other))
    names = [run_id(spec, graph_of(spec, build_data(spec).fingerprint)) for spec in (one, two)]
    assert "emma" in names[0] and "copy" in names[1]
    assert names[0].rpartition("-")[2] == names[1].rpartition("-")[2]


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("data=stdlib", "stdlib"),
        ("data=wikitext", "wikitext"),
        ("data=tinystories", "tinystories"),
        ("data=hub data.name=owner/corpus", "corpus"),
        ("data=hub data.name=owner/corpus data.config=en", "corpus-en"),
        ("data=mqar data.gap=8", "mqar~"),
        (f"data=text data.path={'x' * 300}.txt", "x" * 40),
    ],
)
def test_every_corpus_has_its_own_name(given, name):
    spec = compose([*QUIET, *given.split()])
    assert (spec.data.option, spec.options["data"]) == (name, name)


@pytest.mark.slow
def test_conditions_on_several_texts_and_their_controls_are_labelled_by_them(library, outputs):
    texts = ",".join(str(library / f"{name}.txt") for name in ("emma", "ulysses"))
    given = [*NO_DATA, "logger=csv", "pattern=causal", "selector.k=8", "seq_len=64", "data=text", "steps=8"]
    places = [f"output_dir={outputs}", f"cache_dir={outputs}"]
    (plan,) = plans_of("name=x", "exploratory=true", *given, *places, "indexer=h1d8,h2d8", f"data.path={texts}")
    labels = {run.label for run in plan.runs}
    conditions = {f"{indexer}-{text}" for indexer in ("h1d8", "h2d8") for text in ("emma", "ulysses")}
    controls = {run.label for run in plan.runs if run.role == "control"}
    assert labels - controls == conditions
    assert {f"dense-{text}" for text in ("emma", "ulysses")} < controls
    assert {run.context for run in plan.runs} == {"emma", "ulysses"}


def test_texts_of_one_name_keep_their_places_in_the_labels(library, outputs):
    folders = [library / name for name in ("old", "new")]
    for folder in folders:
        folder.mkdir()
        folder.joinpath("book.txt").write_text(f"{folder.name} text. " * 500)
    given = [*NO_DATA, "logger=csv", "pattern=causal", "selector.k=8", "seq_len=64", "data=text", "steps=8"]
    places = [f"output_dir={outputs}", f"cache_dir={outputs}"]
    texts = ",".join(str(folder / "book.txt") for folder in folders)
    (plan,) = plans_of("name=x", "exploratory=true", *given, *places, f"data.path={texts}")
    labels = {run.label for run in plan.runs if run.role == "condition"}
    assert len(labels) == 2
    assert all(any(str(folder) in label for label in labels) for folder in folders)
    assert len({run.context for run in plan.runs}) == 2
