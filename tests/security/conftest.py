"""Run and study folders that come from somebody else, and a module that tells whether it was run."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import QUIET, SMALL
from dsa.training.result import RunResult
from omegaconf import OmegaConf

from dsa import compose
from dsa.build import build_model
from dsa.study.store import OF_A_RUN

VOCAB = 192
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
    """A finished run of a study of one run, made without training, whose configuration says what the sender likes."""

    def make(changes: dict[str, Any], code: str = "another", **of_plan: Any) -> Path:
        cfg = compose([*SMALL, *QUIET, "indexer=h1d8", "pattern=causal", "selector.k=8", f"output_dir={outputs}"])
        folder = outputs / "theirs" / "h1d8-L64-s0-0123abcd"
        kept = folder / "checkpoints" / "sparse"
        kept.mkdir(parents=True)
        weights = {f"model.{name}": value for name, value in build_model(cfg, VOCAB).state_dict().items()}
        torch.save({"state_dict": weights}, kept / "weights.ckpt")
        plain: Any = OmegaConf.to_container(cfg, resolve=True)
        for key, value in changes.items():
            *path, last = key.split(".")
            node = plain
            for part in path:
                node = node[part]
            node[last] = value
        OmegaConf.save(OmegaConf.create(plain), folder / "config.yaml")
        condition = {"indexer": "h1d8", "pattern": "causal", "selector": "topk", "precision": "fp32"}
        RunResult(
            folder.name, "finished", "theirs", condition, "tiny", "mqar", "continue", 64, 0, provenance={"code": code}
        ).write(folder)
        run = dict.fromkeys(OF_A_RUN) | {"label": "h1d8", "role": "condition", "kind": "condition", "context": ""}
        run |= {"seq_len": 64, "seed": 0, "run_id": folder.name, "config_hash": "0123abcd", "study": "theirs"} | of_plan
        plan = {"name": "theirs", "seq_len": [64], "controls": [], "runs": [run], "created": "today"}
        plan |= {"metric": "val_loss", "baseline": "h1d8", "conditions": {"h1d8": {"indexer": "h1d8"}}}
        (folder.parent / "study.json").write_text(json.dumps(plan))
        return folder

    return make
