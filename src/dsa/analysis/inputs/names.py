"""What a study compares, and what it compares it with."""

GROUPS = ("indexer", "pattern", "selector", "precision", "objective")  # what is compared; anything else is context
CONTROLS = ("dense", "oracle", "random", "window", "sink_window", "static")
