"""What makes an artifact stale: a change of the source that it ran through, and of nothing that stands beside it."""

import ast
import functools
import shutil
import sys
from pathlib import Path

import pytest
from conftest import QUIET, SMALL, options

import dsa
from dsa import compose
from dsa.artifacts import closure
from dsa.graph import Graph, graph_of

RUN = [*SMALL, *QUIET, "indexer=h2d8", "pattern=strided", "precision=int8"]
EVERY = {"base", "indexers", "joint", "control", "dense", "swap", "window", "final", "control_final"}
JUDGED = {"swap", "window", "final"}
parse = functools.cache(ast.parse)


def forget():
    """As a new process finds it."""
    for value in vars(closure).values():
        if hasattr(value, "cache_clear"):
            value.cache_clear()


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A copy of the package that may be changed, in the place of the one that runs."""
    copy = tmp_path / "dsa"
    shutil.copytree(Path(dsa.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    places = closure.places.__wrapped__
    monkeypatch.setattr(closure, "places", lambda top: (copy,) if top == "dsa" else places(top))
    monkeypatch.setattr(closure, "PACKAGE", copy)
    monkeypatch.setattr(closure.ast, "parse", parse)
    forget()
    yield copy
    forget()


@functools.cache
def spec_of(*overrides):
    """What a run describes, which no change of source changes."""
    return compose([*RUN, *overrides])


def codes(*overrides):
    """Fingerprint of the code of each artifact of a run."""
    forget()
    graph: Graph = graph_of(spec_of(*overrides), "corpus")
    return {name: getattr(graph, name).code for name in EVERY}


def changed(before, after):
    return {name for name in EVERY if before[name] != after[name]}


def touch(path: Path):
    assert path.exists()
    comment = "// changed\n" if path.suffix in (".cpp", ".h") else "# changed\n"
    path.write_text(path.read_text() + comment)


@pytest.mark.slow
def test_a_new_pattern_changes_nothing(package):
    before = codes()
    (package / "patterns" / "mine.py").write_text("from dsa.patterns.base import Pattern\n\nclass Mine(Pattern): ...\n")
    init = package / "patterns" / "__init__.py"
    init.write_text(init.read_text() + "from dsa.patterns.mine import Mine\n")
    assert codes() == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "of", "stale"),
    [
        ("patterns/strided.py", RUN, JUDGED | {"joint"}),
        ("patterns/local_global.py", RUN, set()),
        ("patterns/base.py", RUN, EVERY),
        ("selectors/progressive.py", ["selector=progressive_linear"], JUDGED | {"joint"}),
        ("selectors/progressive.py", RUN, set()),
        ("precision/integer.py", RUN, {"swap", "final"}),
        ("precision/integer.py", ["precision.in_training=true"], {"swap", "final", "indexers", "joint"}),
        ("precision/float8.py", RUN, set()),
        ("indexers/lightning.py", RUN, {"indexers", "swap", "joint", "final"}),
        ("indexers/lightning.py", ["indexer=static"], set()),
        ("backbones/transformer.py", RUN, EVERY),
        ("data/mqar.py", RUN, EVERY),
        ("data/needle.py", RUN, set()),
        ("training/base.py", RUN, EVERY),
        ("training/cohort.py", RUN, {"indexers", "swap", "joint", "final"}),
        ("training/joint.py", RUN, {"joint", "control", "final", "control_final"}),
        ("judging/probe.py", RUN, {"dense", "swap", "window", "final", "control_final"}),
    ],
)
def test_a_change_makes_stale_what_ran_through_it_and_what_was_made_from_that(package, file, of, stale):
    overrides = [] if of is RUN else of
    before = codes(*overrides)
    touch(package / file)
    assert changed(before, codes(*overrides)) == stale


@pytest.mark.slow
def test_runs_that_share_an_artifact_agree_on_its_code(package):
    """Else each of them would find the other's stale, and make it again."""
    forget()
    found = {}
    recipes = [[], ["recipe=judge"], ["recipe=scratch"], ["precision.in_training=true"], ["indexer_seed=1"]]
    groups = ("precision", "objective", "selector", "pattern")
    settings = recipes + [[f"{group}={name}"] for group in groups for name in options(group)] + [["indexer=static"]]
    for overrides in settings:
        graph = graph_of(spec_of(*overrides), "corpus")
        for name in EVERY:
            need = getattr(graph, name)
            if need is not None:
                assert found.setdefault(need.hash, need.code) == need.code, (overrides, name)
    assert len(found) > len(settings)


@pytest.mark.slow
@pytest.mark.parametrize("kernel", ["*.cpp", "*.h"])
def test_a_kernel_makes_everything_stale(package, kernel):
    before = codes()
    touch(next((package / "ops" / "kernels").glob(kernel)))
    assert changed(before, codes()) == EVERY


@pytest.mark.slow
def test_what_only_records_shows_or_plans_makes_nothing_stale(package):
    before = codes()
    for file in ("loggers", "console", "maps", "log", "run", "assemble"):
        touch(package / "training" / f"{file}.py")
    for folder in ("analysis", "bench", "doors", "inspection", "study"):
        for path in (package / folder).rglob("*.py"):
            touch(path)
    assert codes() == before


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A package of a user's own, with a pattern that stands on some of it."""
    folder = tmp_path / "code" / "ownlab"
    (folder / "deep").mkdir(parents=True)
    sources = {
        "__init__.py": "from ownlab.mine import Mine\n",
        "mine.py": (
            "from dsa.patterns import Causal\n\nfrom ownlab import helpers\nfrom .deep import inner\n\n\n"
            "class Mine(Causal):\n    pass\n"
        ),
        "helpers.py": "import ownlab.shared\n",
        "shared.py": "",
        "deep/__init__.py": "from .inner import something\n",
        "deep/inner.py": "something = 1\n",
        "beside.py": "from ownlab import mine\n",
    }
    for name, text in sources.items():
        (folder / name).write_text(text)
    monkeypatch.syspath_prepend(folder.parent)
    monkeypatch.delitem(sys.modules, "ownlab", raising=False)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("file", ["mine.py", "helpers.py", "shared.py", "deep/inner.py"])
def test_a_users_module_counts_and_what_it_imports_of_its_own_package(package, own, file):
    mine = ["pattern=causal", "pattern._target_=ownlab.Mine", "allow_targets=[ownlab]"]
    before, other = codes(*mine), codes()
    touch(own / file)
    assert changed(before, codes(*mine)) == JUDGED | {"joint"}
    assert codes() == other


@pytest.mark.slow
def test_what_a_user_keeps_beside_it_does_not_count(package, own):
    mine = ["pattern=causal", "pattern._target_=ownlab.Mine", "allow_targets=[ownlab]"]
    before = codes(*mine)
    touch(own / "beside.py")
    assert codes(*mine) == before
    touch(package / "patterns" / "causal.py")  # what its class inherits from
    assert changed(before, codes(*mine)) == JUDGED | {"joint"}
