"""What a training step takes by length, timed alone and in turns, beside dense attention."""

from dsa.analysis.inputs.cost import COSTS, cost_of
from dsa.analysis.judgement.analysis import Analysis
from dsa.analysis.output.figures.places import labels, places, role
from dsa.analysis.output.figures.spec import Axis, Chart, Line, Panel

STEP = COSTS["step_ms"]


def chart(analysis: Analysis) -> Chart:
    """One panel for each context; nothing with fewer than two lengths that were timed."""
    contexts = dict.fromkeys(context for _, context in places(analysis))
    return Chart(
        name="times",
        kind="lines",
        title="Time of a training step by length",
        panels=tuple(p for context in contexts if (p := panel(analysis, context)).lines),
        caption="Median over turns, from the least turn to the greatest, each in a process of its own; a whole step: "
        "forward, losses, backward and optimiser, and not attention alone.",
    )


def panel(analysis: Analysis, context: str) -> Panel:
    """Conditions and controls on one model."""
    here = [place for place in places(analysis) if place[1] == context]
    names = dict.fromkeys(label for place in here for label in labels(analysis, place))
    lines = [course(analysis, label, [length for length, _ in here]) for label in names]
    lengths = tuple(float(length) for length, _ in here)
    return Panel(
        context,
        Axis("tokens", log=True, ticks=lengths),
        Axis("training step [ms]", log=True),
        lines=tuple(line for line in lines if len(line.x) > 1),
    )


def course(analysis: Analysis, label: str, lengths: list[int]) -> Line:
    """A label's times over the lengths at which it was timed."""
    turns = {length: cost_of(analysis.prepared, label, length, STEP) for length in lengths}
    timed = {length: taken for length, taken in turns.items() if len(taken)}
    return Line(
        label,
        role(analysis, label),
        x=tuple(map(float, timed)),
        y=tuple(float(taken.median()) for taken in timed.values()),
        low=tuple(float(taken.min()) for taken in timed.values()),
        high=tuple(float(taken.max()) for taken in timed.values()),
        over=f"{max(map(len, timed.values()), default=0)} turns",
        marked=True,
    )
