"""The quality scales: where a run keeps its value, and those of dense attention and of a window beside it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """One way to measure quality.

    Args:
        sign: 1 where less is better, -1 where more is.
        dense: the field that holds dense attention's value in every run.
        window: the field that holds the value of the nearest keys at the run's own budget; None if only the window
            control has it.
        stage: when it is measured; meaning: the same with what that says.
    """

    metric: str
    sign: int
    dense: str
    window: str | None
    unit: str
    stage: str
    meaning: str

    @property
    def quantity(self) -> str:
        """What is measured."""
        return "loss" if self.unit == "nats" else "accuracy"

    @property
    def plain(self) -> str:
        """What a newcomer would call it."""
        return f"{self.quantity}, {self.stage}"


TRAINED = ("after joint training", "after joint training: what a user gets")
SWAPPED = ("backbone untouched", "backbone untouched: the indexer alone")
SCALES = {
    scale.metric: scale
    for scale in (
        Scale("val_loss", 1, "dense_val_loss", None, "nats", *TRAINED),
        Scale("swap_val_loss", 1, "base_val_loss", "swap_window_loss", "nats", *SWAPPED),
        Scale("val_accuracy", -1, "dense_val_accuracy", None, "share", *TRAINED),
        Scale("swap_val_accuracy", -1, "base_val_accuracy", "swap_window_accuracy", "share", *SWAPPED),
        Scale("val_exact_match", -1, "dense_val_exact_match", None, "share", *TRAINED),
        Scale("swap_val_exact_match", -1, "base_val_exact_match", "swap_window_exact_match", "share", *SWAPPED),
    )
}


def scale_of(metric: str) -> Scale:
    """The scale of a metric.

    Raises:
        ValueError: it is not a quality.
    """
    if metric not in SCALES:
        raise ValueError(f"metric = {metric}: a verdict rests on one of {', '.join(SCALES)}.")
    return SCALES[metric]
