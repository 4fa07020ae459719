"""Small networks that score keys: hidden states in, IndexFeatures out."""

from dsa.indexers.base import Indexer, Work
from dsa.indexers.block_mean import BlockMeanIndexer
from dsa.indexers.by_length import ByLengthIndexer
from dsa.indexers.dynamic import DynamicIndexer
from dsa.indexers.gated_pool import GatedPoolIndexer
from dsa.indexers.group_blocks import GroupBlockIndexer
from dsa.indexers.lightning import LightningIndexer
from dsa.indexers.multi_scale import MultiScaleIndexer
from dsa.indexers.overlapping_pool import OverlappingPoolIndexer
from dsa.indexers.picking import Picking
from dsa.indexers.static import StaticIndexer
from dsa.indexers.two_stage import TwoStageIndexer

__all__ = [
    "BlockMeanIndexer",
    "ByLengthIndexer",
    "DynamicIndexer",
    "GatedPoolIndexer",
    "GroupBlockIndexer",
    "Indexer",
    "LightningIndexer",
    "MultiScaleIndexer",
    "OverlappingPoolIndexer",
    "Picking",
    "StaticIndexer",
    "TwoStageIndexer",
    "Work",
]
