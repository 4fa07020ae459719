"""The transformer that composes indexer, pattern, selector and precision."""

from dsa.model.attention import Observation, Pass, SparseAttention
from dsa.model.transformer import SparseTransformer

__all__ = ["Observation", "Pass", "SparseAttention", "SparseTransformer"]
