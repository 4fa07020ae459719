"""Tensors in, tensors out: choose keys, attend to them, teach the indexer. No modules, no configs."""

from dsa.ops.bands import Band
from dsa.ops.cohort import indexer_losses
from dsa.ops.contracts import Backend, Call, ScoredRows, Scorer, SelectedMass, Selection
from dsa.ops.dense import attend_dense
from dsa.ops.dispatch import (
    attend,
    attend_with_target,
    captured,
    checked_backend,
    dense_logsumexp,
    indexer_loss,
    multiplies,
    own_dtypes,
    select,
    select_chosen,
    settle,
)
from dsa.ops.in_units import InUnits
from dsa.ops.lightning import lightning_features
from dsa.ops.mixed import Mixed, Picked, Stretch, part_of
from dsa.ops.of_another import OfAnother
from dsa.ops.opaque import opaque
from dsa.ops.rotary import Rotation
from dsa.ops.scorers import KEY_MARGIN, Emphasis, Hash, IndexFeatures, Integers, Recency, TrueAttention
from dsa.ops.two_stage import TwoStage
from dsa.ops.zones import Zone, Zones, by_group, kept, visible

__all__ = [
    "KEY_MARGIN",
    "Backend",
    "Band",
    "Call",
    "Emphasis",
    "Hash",
    "InUnits",
    "IndexFeatures",
    "Integers",
    "Mixed",
    "OfAnother",
    "Picked",
    "Recency",
    "Rotation",
    "ScoredRows",
    "Scorer",
    "SelectedMass",
    "Selection",
    "Stretch",
    "TrueAttention",
    "TwoStage",
    "Zone",
    "Zones",
    "attend",
    "attend_dense",
    "attend_with_target",
    "by_group",
    "captured",
    "checked_backend",
    "dense_logsumexp",
    "indexer_loss",
    "indexer_losses",
    "kept",
    "lightning_features",
    "multiplies",
    "opaque",
    "own_dtypes",
    "part_of",
    "select",
    "select_chosen",
    "settle",
    "visible",
]
