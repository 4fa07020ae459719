"""Names that several rooms share."""

GROUPS = ("indexer", "pattern", "selector", "precision")
"""The config groups that make a composition."""

CONTROLS = ("dense", "oracle", "random", "window")
"""Selectors that an indexer is judged against."""

CONTENDED = 0.1
"""Share of the cores that other processes may use before times count as contended."""

METRICS = ("val_loss", "swap_val_loss", "val_accuracy", "swap_val_accuracy")
"""Measures of quality that a verdict may rest on; those of `swap` with the backbone untouched."""

CLAIMS = ("some_condition_differs", "no_quality_loss", "on_pareto_front", "order_depends_on_length",
          "order_depends_on_size", "cannot_discriminate")  # fmt: skip
"""What a study's hypothesis may state."""
