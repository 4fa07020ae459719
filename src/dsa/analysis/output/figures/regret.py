"""What one condition loses against the best of each length: whether one will do everywhere."""

from dsa.analysis.inputs.scale import scale_of
from dsa.analysis.judgement.analysis import Analysis
from dsa.analysis.judgement.regret import Regret
from dsa.analysis.output.figures.limits import axis
from dsa.analysis.output.figures.places import role
from dsa.analysis.output.figures.spec import Chart, Mark, Panel, Row


def chart(analysis: Analysis) -> Chart:
    """Every condition, the least regret first; nothing for a study of one length."""
    lengths = sorted({length for one in analysis.regret for length in one.by_length})
    contexts = dict.fromkeys(one.context for one in analysis.regret) if len(lengths) > 1 else {}
    return Chart(
        name="regret",
        kind="forest",
        title="Regret over lengths: is there one for all?",
        panels=tuple(panel(analysis, context, lengths) for context in contexts),
        series=tuple(f"at {length} tokens" for length in lengths),
        caption="Mean less the best mean of the length, the condition of the least largest regret on top. Dashed: the "
        "margin.",
    )


def panel(analysis: Analysis, context: str, lengths: list[int]) -> Panel:
    """One context."""
    meta = analysis.prepared.meta
    scale, margin = scale_of(meta.metric), meta.margin.get(meta.metric, 0.0)
    mine = [one for one in analysis.regret if one.context == context]
    values = [value for one in mine for value in one.by_length.values()]
    guides = (0.0, margin) if margin else (0.0,)
    label = f"{scale.quantity} beyond the best of the length [{scale.unit}]"
    rows = tuple(row(analysis, one, lengths) for one in mine)
    return Panel(context or "every length", axis(label, values, guides, False, guides, margin), rows=rows)


def row(analysis: Analysis, one: Regret, lengths: list[int]) -> Row:
    """One condition."""
    marks = tuple(Mark(lengths.index(length), value) for length, value in one.by_length.items())
    return Row(one.label, role(analysis, one.label), marks)
