"""What a study compares beside the options of a composition."""

from dsa.artifacts.names import GROUPS as COMPOSITION

GROUPS = (*COMPOSITION, "objective")  # what is compared; anything else is context
