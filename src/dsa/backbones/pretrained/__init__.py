"""Language models that somebody else trained, reached through transformers' attention interface."""

from dsa.backbones.pretrained.model import Adopted, Pretrained

__all__ = ["Adopted", "Pretrained"]
