"""Numbers and tables in Markdown."""

from collections.abc import Iterable, Sequence

import pandas as pd

from dsa.analysis.judgement.compare import Comparison

Interval = tuple[float, float] | None


def number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}g}"


def signed(value: float, interval: Interval = None, unit: str = "") -> str:
    """A difference with its interval."""
    bounds = f" [{interval[0]:+.3g}, {interval[1]:+.3g}]" if interval else ""
    return f"{value:+.3g}{bounds} {unit}".strip()


def percent(value: float, interval: Interval = None, sign: bool = False, digits: int = 1) -> str:
    """A share in percent with its interval."""
    form = f"{{:{'+' if sign else ''}.{digits}f}}"
    bounds = f" [{', '.join(form.format(100 * bound) for bound in interval)}]" if interval else ""
    return f"{form.format(100 * value)}{bounds} %"


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; a bar inside a cell would end it."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def framed(frame: pd.DataFrame) -> str:
    """A data frame as a Markdown table, with a dash where it has no value."""
    told = frame.astype(object).where(frame.notna(), "–")
    return table([str(name) for name in frame], told.itertuples(index=False))


def verdict(c: Comparison, unit: str) -> str:
    """A comparison in a table's cell."""
    return f"{c.word}: {signed(c.difference.mean, c.difference.interval, unit)}"


def visible(comparisons: Sequence[Comparison]) -> str:
    """The smallest effects that inconclusive comparisons could have seen."""
    seen = sorted(c.difference.detectable for c in comparisons if c.difference.detectable is not None)
    if not seen:
        return "too few seeds to say what could have been seen"
    return f"{number(seen[0])}" + (f" to {number(seen[-1])}" if len(seen) > 1 else "")


def capital(text: str) -> str:
    return text[:1].upper() + text[1:]
