"""The attention layers of a backbone, known without its weights."""

import torch

from dsa.artifacts.digest import digest
from dsa.backbones import Site
from dsa.build import build_backbone
from dsa.spec import Spec

SITES: dict[str, tuple[Site, ...]] = {}
"""The sites of each model that was asked for, by a hash of its settings: a plan asks for every condition."""


def first_site(spec: Spec) -> Site:
    """The first attention layer of its backbone."""
    return sites_of(spec)[0]


def sites_of(spec: Spec) -> tuple[Site, ...]:
    """The attention layers of its backbone, of which the weights are not made."""
    key = digest([spec.model.node, spec.allow_targets], 32)
    if key not in SITES:
        with torch.device("meta"):
            SITES[key] = build_backbone(spec, vocab_size=1).sites
    return SITES[key]
