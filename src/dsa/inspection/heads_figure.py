"""What the heads of a run do, drawn by layer."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dsa.inspection.figures import BEST, DENSE, KEPT, MISSED, panels

GRIDS = {"negative": "queries with w < 0", "clipped_attention": "attention on clipped keys",
         "mass_without": "mass without the head"}  # fmt: skip
LINES: dict[str, tuple[str, dict[str, Any]]] = {
    "oracle_mass": ("keys of highest attention", {"color": BEST, "ls": ":"}),
    "mass": ("weights as trained", {"color": KEPT, "marker": "o"}),
    "mass_clamped": ("negative weights at 0", {"color": MISSED, "marker": "v"}),
    "mass_absolute": ("absolute weights", {"color": DENSE, "marker": "^"}),
}  # fmt: skip


def draw(found: dict[str, Any], folder: Path) -> list[Path]:
    """One figure, as PNG; its path."""
    path = folder / f"{found['run_id']}.png"
    figure, axes = panels(1 + len(GRIDS), sharey=False)
    mass(axes[0], found["layers"])
    for axis, (name, title) in zip(axes[1:], GRIDS.items(), strict=True):
        grid(figure, axis, found["heads"], name, title)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=4, frameon=False, fontsize=8)
    figure.savefig(path, dpi=110)
    return [path]


def mass(axis: Axes, layers: list[dict[str, Any]]) -> None:
    """By layer, with weights as they are and changed in that layer alone."""
    for name, (label, style) in LINES.items():
        axis.plot([row["layer"] for row in layers], [row[name] for row in layers], label=label, ms=4, lw=1, **style)
    axis.set_xlabel("layer", fontsize=9)
    axis.set_ylabel("attention mass selected", fontsize=9)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))


def grid(figure: Figure, axis: Axes, heads: list[dict[str, Any]], name: str, title: str) -> None:
    """A share of each head of each layer."""
    layers, numbers = (sorted({row[key] for row in heads}) for key in ("layer", "head"))
    values = np.full((len(numbers), len(layers)), np.nan)
    for row in heads:
        values[numbers.index(row["head"]), layers.index(row["layer"])] = row[name]
    image = axis.imshow(values, vmin=0, vmax=1, cmap="Blues", aspect="auto")
    if len(layers) <= 8:
        for (i, j), value in np.ndenumerate(values):
            colour = "white" if value > 0.6 else "k"
            axis.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=8, color=colour)
    shown = range(0, len(layers), -(-len(layers) // 8))
    axis.set_xticks(shown, [str(layers[i]) for i in shown])
    axis.set_yticks(range(len(numbers)), [str(number) for number in numbers])
    axis.set_title(title, fontsize=9)
    axis.set_xlabel("layer", fontsize=9)
    axis.set_ylabel("head", fontsize=9)
    figure.colorbar(image, ax=axis, shrink=0.8)
