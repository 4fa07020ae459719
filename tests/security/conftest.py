"""Run and study folders that come from somebody else, and a module that tells whether it was run."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import QUIET, SMALL
from omegaconf import OmegaConf

from dsa import compose
from dsa.artifacts.results import RunResult
from dsa.artifacts.store import RECORD, Store
from dsa.build import build_model
from dsa.config import resolved
from dsa.graph import Graph, graph_of
from dsa.judging.checkpoints import save_weights
from dsa.spec import Spec, spec_from
from dsa.study.states import OF_A_RUN, roots_of

VOCAB, CORPUS = 192, "theirs"
FOREIGN = """
from pathlib import Path
from dsa.indexers import LightningIndexer
from hydra.experimental.callback import Callback

Path({mark!r}).touch()


def run(*arguments, **named):
    Path({mark!r}).touch()


class Indexer(LightningIndexer):
    pass


class Alike:
    def __init__(self, **settings):
        pass


class Own(Callback):
    pass
"""


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that is there once the package `foreign`, importable by anybody, was imported or called."""
    path = tmp_path / "it ran"
    package = tmp_path / "code" / "foreign"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(FOREIGN.format(mark=str(path)))
    (package / "inner").mkdir()
    (package / "inner" / "__init__.py").touch()
    monkeypatch.syspath_prepend(package.parent)
    for name in ("foreign", "foreign.inner"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return path


@pytest.fixture
def run_folder(outputs: Path) -> Callable[..., Path]:
    """A finished run of a study of one run, made without training, whose configuration says what the sender likes.

    Its weights and judgement lie where that configuration leads to.
    """

    def make(changes: dict[str, Any], code: str = "another", roots: Any = (), **of_plan: Any) -> Path:
        spec = compose([*SMALL, *QUIET, "indexer=h1d8", "pattern=causal", "selector.k=8", f"output_dir={outputs}"])
        folder = outputs / "theirs" / "h1d8-L64-s0-0123abcd"
        folder.mkdir(parents=True)
        plain = changed(spec.content, changes)
        OmegaConf.save(OmegaConf.create(plain), folder / "config.yaml")
        graph = graph_as_read(plain, graph_of(spec, CORPUS))
        keep(graph, spec)
        condition = {"indexer": "h1d8", "pattern": "causal", "selector": "topk", "precision": "fp32"}
        RunResult(
            folder.name, "finished", "theirs", condition, "tiny", "mqar", "continue", 64, 0,
            corpus=CORPUS, provenance={"code": code},
        ).write(folder)  # fmt: skip
        run: dict[str, Any] = dict.fromkeys(OF_A_RUN) | {"label": "h1d8", "role": "condition", "kind": "condition"}
        run |= {"context": "", "seq_len": 64, "seed": 0, "judge": "val", "run_id": folder.name, "study": "theirs"}
        run |= {"config_hash": "0123abcd", "code": "theirs", "artifacts": dict.fromkeys(KINDS)} | of_plan
        plan = {"name": "theirs", "seq_len": [64], "controls": [], "runs": [run], "created": "today"}
        plan |= {"metric": "val_loss", "baseline": "h1d8", "conditions": {"h1d8": {"indexer": "h1d8"}}}
        plan |= {"codes": {"theirs": roots or roots_of(graph)}, "logger": {}}
        (folder.parent / "study.json").write_text(json.dumps(plan))
        return folder

    return make


KINDS = ("base", "indexers", "joint", "control")


def changed(content: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """A configuration with what the sender puts into it, interpolations as they are written."""
    plain: Any = OmegaConf.to_container(OmegaConf.create(content))
    for key, value in changes.items():
        *path, last = key.split(".")
        node = plain
        for part in path:
            node = node[part]
        node[last] = value
    return plain


def graph_as_read(plain: dict[str, Any], sound: Graph) -> Graph:
    """What a reader of the configuration takes it to stand on; the sound one's where it is refused before that."""
    try:
        return graph_of(spec_from(resolved(OmegaConf.create(plain | {"allow_targets": []}))), CORPUS)
    except ValueError:  # TargetRefused too
        return sound


def keep(graph: Graph, spec: Spec) -> None:
    """The artifacts of a run as far as its model is made of them, with weights that were never trained."""
    store, joint = Store(spec.outputs), graph.final.needs[0]
    partial = store.partial(joint)
    store.begin(partial, joint.code)
    save_weights(build_model(spec, VOCAB).state_dict(), partial)
    store.publish(partial, joint, {"vocab_size": VOCAB, "config": spec.content})
    store.keep_judgement(graph.final, {})
    assert (store.folder(joint) / RECORD).exists()
