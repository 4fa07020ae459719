"""Hydra's way to the studies of dsa: hydra/sweeper=dsa."""

from hydra_plugins.dsa_sweeper.sweeper import StudySweeper

__all__ = ["StudySweeper"]
