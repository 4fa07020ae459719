"""What tests of cohorts share: members, and what became of them."""

import torch
from conftest import QUIET, SMALL, fitting, indexers
from omegaconf import OmegaConf

from dsa import compose
from dsa.artifacts.store import Store
from dsa.build import build_data
from dsa.config import config_dir
from dsa.graph import graph_of
from dsa.judging.checkpoints import read_weights
from dsa.training.cohort import make_indexers
from dsa.training.dashboard import Dashboard
from dsa.training.log import read_rows

RUN = [
    *SMALL, *QUIET, "seq_len=32", "dtype=fp32", "pattern=causal", "recipe.dense.steps=2", "recipe.warmup.steps=6",
    "recipe.sparse.steps=0", "callbacks.checkpoint_every=2",
]  # fmt: skip
SIZES = {f"h{heads}d{dim}" for heads in (1, 2, 3, 4) for dim in (1, 2, 4, 8, 16, 32, 64)} - {"h1d1", "h4d64"}
EVERY = [fitting("indexer", name) for name in indexers() if name not in SIZES]  # one kind: the ends of it
STUDY = OmegaConf.load(config_dir() / "study" / "optimal_indexer_config.yaml")
TWENTY = [[f"indexer={name}", "indexer_seed=1"] for name in STUDY.conditions.indexer]
AGAIN = [[f"indexer={name}", "indexer_seed=2"] for name in STUDY.conditions.indexer[::4]]
SEEDS = [["indexer=h2d8", f"indexer_seed={seed}"] for seed in (1, 2)]
SHARED = ["indexer=h2d8", "index_every=2"]
LEARNED = [
    "indexer=h2d8", "pattern=learned", "pattern.patterns.near.window=2", "pattern.patterns.near.budget=4",
    "pattern.patterns.all.budget=8", "pattern.patterns.sinks.window=2", "pattern.patterns.sinks.budget=6",
]  # fmt: skip
FEW = [["indexer=h1d8"], ["indexer=ultra_light"], *SEEDS, SHARED, LEARNED]


class Killed(SystemExit):
    """Stands for a kill: nothing is written any more, as after any interruption."""


def killed(*_args, **_named):
    raise Killed


def wishes_of(members, outputs):
    """The specs of these members, with what names their indexers."""
    data = build_data(compose(RUN))
    specs = [compose([*RUN, *member, f"output_dir={outputs}"]) for member in members]
    return [(spec, graph_of(spec, data.fingerprint).indexers) for spec in specs], data


def make(wishes, data):
    """Train the members of a cohort whose base is there."""
    spec = wishes[0][0]
    return make_indexers(Store(spec.outputs), wishes, data, Dashboard(spec, "cohort", "dense", "cohort", silent=True))


def weights(wish):
    spec, need = wish
    return read_weights(Store(spec.outputs).folder(need))


def same(a, b):
    assert a.keys() == b.keys()
    return all(torch.equal(a[name], b[name]) for name in a)


def rows(wish):
    """What a member's record says of its training, less how long it took."""
    spec, need = wish
    path = Store(spec.outputs).folder(need) / "metrics.csv"
    every = read_rows(path) if path.exists() else []
    return [{name: value for name, value in row.items() if not name.startswith("speed/")} for row in every]
