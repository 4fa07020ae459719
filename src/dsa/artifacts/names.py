"""Names that several rooms share."""

GROUPS = ("indexer", "pattern", "selector", "precision")
"""The config groups that make a composition."""

CONTROLS = ("dense", "oracle", "random", "window")
"""Selectors that an indexer is judged against."""

CONTENDED = 0.1
"""Share of the cores that other processes may use before times count as contended."""
