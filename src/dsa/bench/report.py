"""Measurements as a table, as JSON, and as a plot of time against length."""

import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from rich.console import Console
from rich.table import Table

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
    console = Console()
    Console(width=max(console.width, 120)).print(table)


def about(rows: Rows) -> str:
    machine = rows[0]["machine"]
    text = f"{machine['processor']}, {machine['threads']} threads, torch {machine['torch']}"
    if (machine["load"] or 0) > machine["threads"] + 0.5:
        text += f"; CONTENDED: load {machine['load']:.1f}"
    return text


def write(rows: Rows, path: Path, title: str) -> None:
    """The rows as JSON, and beside it the plot as PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows, indent=1) + "\n")
    plot(rows, path.with_suffix(".png"), title)


def plot(rows: Rows, path: Path, title: str) -> None:
    """Time against length on log axes, for each direction, with the length from which sparse attention pays."""
    directions = list(dict.fromkeys(row["direction"] for row in rows))
    figure, axes = plt.subplots(1, len(directions), figsize=(5.5 * len(directions), 4.2), squeeze=False)
    for axis, direction in zip(axes[0], directions, strict=True):
        some = [row for row in rows if row["direction"] == direction]
        for component in dict.fromkeys(row["component"] for row in some):
            points = [(row["length"], row["ms"]) for row in some if row["component"] == component]
            axis.plot(*zip(*points, strict=True), marker="o", lw=2 if component == "total" else 1, label=component)
        total = [row for row in some if row["component"] == "total"]
        axis.plot(*zip(*((r["length"], r["dense_ms"]) for r in total), strict=True), "k--", marker="s", label="dense")
        point = break_even([row["length"] for row in total], [row["ratio"] for row in total])
        if point is not None:
            axis.axvline(point, color="grey", lw=0.8)
            axis.annotate(f"break-even {point:.0f}", (point, axis.get_ylim()[1]), fontsize=8, va="top", rotation=90)
        axis.set(xscale="log", yscale="log", xlabel="length [tokens]", ylabel="time [ms]", title=direction)
        lengths = sorted({row["length"] for row in rows})
        axis.set_xticks(lengths, [f"{length:,}" for length in lengths])
        axis.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
        axis.legend(fontsize=8)
    figure.suptitle(f"{title}\n{about(rows)}", fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    plt.close(figure)


def break_even(lengths: list[int], ratios: list[float]) -> float | None:
    """Length at which the ratio last crosses 1, on a straight line between logarithms; None if it never does."""
    for i in range(len(ratios) - 1, 0, -1):
        if ratios[i - 1] < 1 <= ratios[i]:
            share = (1 - ratios[i - 1]) / (ratios[i] - ratios[i - 1])
            return lengths[i - 1] * (lengths[i] / lengths[i - 1]) ** share
    return None
