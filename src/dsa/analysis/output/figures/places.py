"""Where a study looked: its lengths and contexts, who is there, and as what."""

from dsa.analysis.inputs.scale import Scale, scale_of
from dsa.analysis.judgement.analysis import Analysis

Place = tuple[int, str]


def places(analysis: Analysis) -> list[Place]:
    """Lengths and contexts with a finished run of any condition."""
    prepared = analysis.prepared
    return [(n, context) for n in prepared.lengths for context in prepared.contexts if prepared.conditions(n, context)]


def labels(analysis: Analysis, place: Place) -> list[str]:
    """Conditions, then controls, with a finished run there."""
    prepared = analysis.prepared
    return [label for label in prepared.labels(place[0]) if prepared.meta.context(label) == place[1]]


def title(place: Place) -> str:
    """The place as a panel's heading."""
    return f"length {place[0]}" + (f", {place[1]}" if place[1] else "")


def role(analysis: Analysis, label: str) -> str:
    """baseline, condition, or which control a label is."""
    meta = analysis.prepared.meta
    control = meta.control(label)
    if control is not None:
        return control
    return "baseline" if meta.reference(label) == label else "condition"


def scale(analysis: Analysis) -> Scale:
    """The scale on which the study ranks."""
    return scale_of(analysis.prepared.meta.metric)
