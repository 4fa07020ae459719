"""Small networks that score keys: hidden states in, IndexFeatures out."""

from dsa.indexers.base import Indexer
from dsa.indexers.block_mean import BlockMeanIndexer
from dsa.indexers.lightning import LightningIndexer
from dsa.indexers.static import StaticIndexer

__all__ = ["BlockMeanIndexer", "Indexer", "LightningIndexer", "StaticIndexer"]
