"""Language models around the attention, and the routers that decide what their sites attend to."""

from dsa.backbones.backbone import Backbone
from dsa.backbones.cache import Cache
from dsa.backbones.contracts import Attended, Observation, Output, Pass, Routed, Site, SiteInputs, Size
from dsa.backbones.memory import Memory
from dsa.backbones.router import Router
from dsa.backbones.transformer import SparseTransformer

__all__ = [
    "Attended",
    "Backbone",
    "Cache",
    "Memory",
    "Observation",
    "Output",
    "Pass",
    "Routed",
    "Router",
    "Site",
    "SiteInputs",
    "Size",
    "SparseTransformer",
]
