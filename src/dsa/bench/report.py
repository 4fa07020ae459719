"""Measurements as a table, as JSON, and as a plot of time against length."""

import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.table import Table

from dsa.analysis.output.cells import wide_console

Rows = list[dict[str, Any]]


def show(rows: Rows, title: str) -> None:
    """Print the rows; `x` columns say how many times faster than dense attention."""
    table = Table(title=title, caption=about(rows))
    for column in ("length", "component", "direction", "ms", "dense ms", "x dense", "x fastest dense", "peak MB",
                   "dense MB", "GFLOP/s"):  # fmt: skip
        table.add_column(column, justify="left" if column in ("component", "direction") else "right")
    for row in rows:
        speed, fastest = row.get("gflops_per_s"), row.get("ratio_fastest")
        table.add_row(
            str(row["length"]), row["component"], row["direction"], f"{row['ms']:.1f}", f"{row['dense_ms']:.1f}",
            f"{row['ratio']:.2f}", "" if fastest is None else f"{fastest:.2f} ({row['fastest_dtype']})",
            f"{row['peak_mb']:.0f}", f"{row['dense_peak_mb']:.0f}", "" if speed is None else f"{speed:.0f}",
        )  # fmt: skip
    wide_console().print(table)


def show_steps(rows: Rows, title: str) -> None:
    """Print whole training steps, one a line: how many times faster than a dense step, and where the time goes."""
    table = Table(title=title, caption=f"{about(rows)}; backbone in {rows[0]['dtype']}; ms of a step and of its parts")
    parts = [name for name in dict.fromkeys(row["component"] for row in rows) if name != "total"]
    for column in ("model", "rows", "length", "sparse", "dense", "x dense", *parts, "peak MB", "dense MB"):
        table.add_column(column, justify="left" if column == "model" else "right")
    steps: dict[tuple[str, int, int], dict[str, dict[str, Any]]] = {}
    for row in rows:
        steps.setdefault((row["model"], row["rows"], row["length"]), {})[row["component"]] = row
    for (model, batch, length), step in steps.items():
        whole = step["total"]
        table.add_row(
            model, str(batch), str(length), f"{whole['ms']:.1f}", f"{whole['dense_ms']:.1f}", f"{whole['ratio']:.2f}",
            *(timed(step[name], whole) for name in parts), f"{whole['peak_mb']:.0f}", f"{whole['dense_peak_mb']:.0f}",
        )  # fmt: skip
    wide_console().print(table)


def timed(row: dict[str, Any], whole: dict[str, Any]) -> str:
    """The time of a part, and in brackets that of a dense step where it is beside another than the whole step is."""
    own = f"{row['ms']:.1f}"
    return own if row["dense_ms"] == whole["dense_ms"] else f"{own} ({row['dense_ms']:.1f})"


def show_tokens(rows: Rows, title: str) -> None:
    """Print rows of decoding: a token's time by the median and of the fastest, what it reads of the cache, and how much
    that holds."""
    table = Table(title=title, caption=about(rows))
    columns = (
        "tokens before", "component", "ms a token", "dense ms", "x dense", "least ms", "dense least ms",
        "x dense, least", "MB read", "dense MB read", "MB held", "dense MB held",
    )  # fmt: skip
    for column in columns:
        table.add_column(column, justify="left" if column == "component" else "right")
    for row in rows:
        sizes = (row[name] / 1e6 for name in ("bytes_read", "dense_bytes_read", "bytes_held", "dense_bytes_held"))
        table.add_row(
            str(row["length"]), row["component"], f"{row['ms']:.3f}", f"{row['dense_ms']:.3f}", f"{row['ratio']:.1f}",
            f"{row['ms_least']:.3f}", f"{row['dense_ms_least']:.3f}", f"{row['ratio_least']:.1f}",
            *(f"{size:.1f}" for size in sizes),
        )  # fmt: skip
    wide_console().print(table)


def about(rows: Rows) -> str:
    machine = rows[0]["machine"]
    text = f"{machine['processor']}, {machine['threads']} threads, torch {machine['torch']}"
    if (machine["load"] or 0) > machine["threads"] + 0.5:
        text += f"; CONTENDED: load {machine['load']:.1f}"
    return text


def write(rows: Rows, path: Path, title: str) -> None:
    """The rows as JSON, and beside it the plot as PNG."""
    write_rows(rows, path, title)
    plot(rows, path.with_suffix(".png"), title)


def write_rows(rows: Rows, path: Path, title: str) -> None:
    """The rows as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([{"title": title} | row for row in rows], indent=1) + "\n")


def show_parts(rows: Rows, title: str) -> None:
    """Print rows of parts: milliseconds, and what that is of the whole."""
    first = rows[0]
    many = f", {first['indexers']} indexers" if "indexers" in first else ""
    heading = f"{title}: {first['model']}, {first['dtype']}, {first['length']} tokens, {first['rows']} rows{many}"
    table = Table(title=heading, caption=about(rows))
    for column in ("", "ms", "of the whole", "peak MB"):
        table.add_column(column, justify="right" if column else "left")
    for row in rows:
        peak = f"{row['peak_mb']:.0f}" if "peak_mb" in row else ""
        table.add_row(row["what"], f"{row['ms']:.1f}", f"{row['of']:.2f}", peak)
    wide_console().print(table)


def show_peaks(rows: Rows, title: str) -> None:
    """Print the most memory that steps hold: a line for each way to save it, a column for each length."""
    table = Table(title=f"{title}: peak MB of a sparse step, of a dense one", caption=about(rows))
    lengths = list(dict.fromkeys(row["length"] for row in rows))
    table.add_column("memory")
    for length in lengths:
        table.add_column(f"{length:,}", justify="right")
    for way in dict.fromkeys(row["memory"] for row in rows):
        own = {row["length"]: row for row in rows if row["memory"] == way}
        table.add_row(way, *(f"{own[n]['peak_mb']:.0f}, {own[n]['dense_peak_mb']:.0f}" for n in lengths))
    wide_console().print(table)


def draw(path: Path) -> None:
    """The plot of rows that were written before, beside them, without measuring again."""
    rows = json.loads(path.read_text())
    plot(rows, path.with_suffix(".png"), rows[0]["title"])


PANELS = {
    "forward": ("Forward: what inference needs", ("select", "attend", "total", "transformers")),
    "train": ("Training: forward and backward, with the indexer loss", None),
}
"""Title and lines of each panel; None for all: the indexer loss is no part of a forward pass."""

WITHOUT_MASS = (
    "Hollow: the probabilities of all selected keys would take too much memory; attending then leaves none behind, "
    "and the loss computes them again."
)


def plot(rows: Rows, path: Path, title: str) -> None:
    """Save the drawing."""
    figure = drawn(rows, title)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def drawn(rows: Rows, title: str) -> Figure:
    """Time against length on log axes: a panel for each direction, and for each model and number of rows whose steps
    were measured, with lines of its own that name their dtype."""
    panels: dict[tuple[str, str], Rows] = {}
    for row in rows:
        whose = f": {row['model']}, {row['rows']} rows" if "model" in row else ""
        panels.setdefault((row["direction"], whose), []).append(row)
    colours = {name: f"C{i}" for i, name in enumerate(dict.fromkeys(row["component"] for row in rows))}
    figure, axes = plt.subplots(1, len(panels), figsize=(6.5 * len(panels), 5.0), squeeze=False)
    for axis, ((direction, whose), own) in zip(axes[0], panels.items(), strict=True):
        heading, wanted = PANELS[direction]
        panel(axis, own, colours, heading + whose, wanted)
    again = any(row.get("mass_kept") is False for row in rows)
    figure.suptitle(f"{title}\n{about(rows)}", fontsize=9)
    if again:
        figure.text(0.5, 0.01, WITHOUT_MASS, fontsize=8, ha="center")
    figure.tight_layout(rect=(0, 0.04 if again else 0, 1, 1))
    return figure


def panel(axis: Axes, rows: Rows, colours: dict[str, str], title: str, wanted: tuple[str, ...] | None) -> None:
    """One direction: its components and, for each dtype, dense attention; where sparse attention begins to pay against
    the fastest of them."""
    for component in dict.fromkeys(row["component"] for row in rows if wanted is None or row["component"] in wanted):
        own = [row for row in rows if row["component"] == component]
        whole = component == "total"
        lengths, times = [row["length"] for row in own], [row["ms"] for row in own]
        label = "sparse, all of it" if whole else component
        colour, width = colours[component], 2.5 if whole else 1
        axis.plot(
            lengths, times, color=colour, marker="o", lw=width, label=f"{label} ({own[0].get('dtype', 'float32')})"
        )
        hollow = [(row["length"], row["ms"]) for row in own if row.get("mass_kept") is False]
        if hollow:
            axis.plot(*zip(*hollow, strict=True), "o", mfc="white", mec=colour)
    total = [row for row in rows if row["component"] == "total"]
    for dtype, style in zip(total[0]["dense_ms_by_dtype"], ("k--", "k:"), strict=False):
        points = [(row["length"], row["dense_ms_by_dtype"][dtype]) for row in total]
        axis.plot(*zip(*points, strict=True), style, marker="s", ms=4, label=f"dense ({dtype})")
    lengths = sorted({row["length"] for row in rows})
    axis.set(xscale="log", yscale="log", xlabel="length [tokens]", ylabel="time [ms]", title=title)
    axis.set_xticks(lengths, [f"{length:,}" for length in lengths])
    axis.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
    fastest = [min(row["dense_ms_by_dtype"].values()) / row["ms"] for row in total]
    point = break_even([row["length"] for row in total], fastest)
    if point is not None:
        axis.axvline(point, color="grey", lw=0.8)
        axis.annotate(f"pays from {point:,.0f} on", (point, axis.get_ylim()[0]), fontsize=8, va="bottom", rotation=90)
    axis.legend(fontsize=8)


def break_even(lengths: list[int], ratios: list[float]) -> float | None:
    """Length at which the ratio last crosses 1, on a straight line between logarithms; None if it never does."""
    for i in range(len(ratios) - 1, 0, -1):
        if ratios[i - 1] < 1 <= ratios[i]:
            share = (1 - ratios[i - 1]) / (ratios[i] - ratios[i - 1])
            return lengths[i - 1] * (lengths[i] / lengths[i - 1]) ** share
    return None
