"""What was measured about a run's selections, drawn."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

KEPT, MISSED, BEST, DENSE = "#0072B2", "#E69F00", "#000000", "#7F7F7F"  # Okabe and Ito's, safe for the colour-blind


def draw(found: dict[str, Any], folder: Path) -> list[Path]:
    """Every figure as PNG and SVG; their paths."""
    figures = {
        "distance": by_distance(found),
        "kinds": by_kind(found),
        "overlap": overlap(found),
        "rank": rank(found),
        "loss": loss(found),
    }
    for what in {decision["what"]: None for layer in found["layers"] for decision in layer["decided"]}:
        figures[f"chosen_{what}"] = decided(found, what)
    paths = []
    for name, figure in figures.items():
        for suffix in ("png", "svg"):
            paths.append(folder / f"{name}.{suffix}")
            figure.savefig(paths[-1], dpi=150)
    return paths


def panels(count: int, width: float = 3.6, height: float = 3.2, sharey: bool = True) -> tuple[Figure, list[Axes]]:
    """Up to four panels a row."""
    columns = min(count, 4)
    rows = -(-count // columns)
    figure = Figure(figsize=(width * columns + 0.8, height * rows + 0.3), layout="constrained")
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(rows, columns, squeeze=False, sharey=sharey).flat)
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8)
    for axis in axes[count:]:
        axis.set_visible(False)
    return figure, axes[:count]


def captured(axis: Axes, rows: list[dict[str, Any]]) -> None:
    """Attention per row as a bar: the part on selected keys, and the part that was missed."""
    total = np.array([row["attention"] or 0.0 for row in rows])
    part = total * np.array([row["captured"] or 0.0 for row in rows])
    place = np.arange(len(rows))
    axis.bar(place, part, color=KEPT, label="captured")
    axis.bar(place, total - part, bottom=part, color=MISSED, label="missed")
    recall = [row["recall"] if row["recall"] is not None else np.nan for row in rows]
    axis.plot(place, recall, "o", color=BEST, ms=4, label="recall of the best keys")
    axis.set_xticks(place, [str(row["name"]) for row in rows], rotation=45, ha="right", fontsize=8)
    axis.set_ylim(0, 1.02)


def stacked(found: dict[str, Any], what: str, label: str) -> Figure:
    """One panel a layer of captured and missed attention."""
    figure, axes = panels(len(found["layers"]))
    for axis, layer in zip(axes, found["layers"], strict=True):
        captured(axis, layer[what])
        axis.set_title(f"layer {layer['layer']}", fontsize=9)
        axis.set_xlabel(label, fontsize=9)
    axes[0].set_ylabel("share", fontsize=9)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False, fontsize=8)
    return figure


def by_distance(found: dict[str, Any]) -> Figure:
    """Where the attention lies by distance, and how much of it was captured."""
    return stacked(found, "distance", "distance from query to key [tokens]")


def by_kind(found: dict[str, Any]) -> Figure:
    """The same by kind of key."""
    return stacked(found, "kinds", "kind of key")


def decided(found: dict[str, Any], what: str) -> Figure:
    """Which pattern the queries of each kind got, or which indexer the rows: a panel for each layer and group."""
    shown = [
        (layer["layer"], number, len(decision["groups"]), decision["names"], group)
        for layer in found["layers"]
        for decision in layer["decided"]
        if decision["what"] == what
        for number, group in enumerate(decision["groups"], 1)
    ]
    figure, axes = panels(len(shown))
    for axis, (layer, number, groups, names, group) in zip(axes, shown, strict=True):
        bars = {"every": group["every"]} | (group["labels"] if len(group["labels"]) > 1 else {})
        bottom = np.zeros(len(bars))
        for name, colour in zip(names, colormaps["cividis"](np.linspace(0, 0.95, len(names))), strict=True):
            part = np.array([shares[name] for shares in bars.values()])
            axis.bar(np.arange(len(bars)), part, bottom=bottom, color=colour, label=name)
            bottom += part
        axis.set_xticks(np.arange(len(bars)), list(bars), rotation=45, ha="right", fontsize=8)
        axis.set_title(f"layer {layer}" + (f", heads {number}/{groups}" if groups > 1 else ""), fontsize=9)
        axis.set_ylim(0, 1.02)
    axes[0].set_ylabel("share of queries" if what == "pattern" else "share of rows", fontsize=9)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=4, frameon=False, fontsize=8)
    return figure


def overlap(found: dict[str, Any]) -> Figure:
    """Overlap coefficients between layers: of the selections, of the best keys, of random ones."""
    titles = {"selected": "selected keys", "best": "keys of highest attention", "chance": "as many random keys"}
    figure, axes = panels(len(titles), width=3.0, height=3.3)
    count = len(found["layers"])
    named = range(0, count, -(-count // 12))  # at most twelve layers, so that their numbers do not touch
    for axis, (name, title) in zip(axes, titles.items(), strict=True):
        matrix = np.array(found["overlap"][name], dtype=float)
        image = axis.imshow(matrix, vmin=0, vmax=1, cmap="Blues")
        axis.set_xticks(named)
        axis.set_yticks(named)
        axis.set_title(title, fontsize=9)
        axis.set_xlabel("layer", fontsize=9)
        if count <= 8:
            for (i, j), value in np.ndenumerate(matrix):
                axis.text(
                    j, i, f"{value:.2f}", ha="center", va="center", fontsize=8, color="white" if value > 0.6 else "k"
                )
    axes[0].set_ylabel("layer", fontsize=9)
    figure.colorbar(image, ax=axes, label="overlap coefficient", shrink=0.8)
    return figure


def rank(found: dict[str, Any]) -> Figure:
    """Effective ranks per layer beside the dims that heads and indexer have."""
    figure, (axis,) = panels(1, width=5.4, height=3.4)
    first = found["layers"][0]["rank"]
    layers = [layer["layer"] for layer in found["layers"]]
    for i, layer in enumerate(found["layers"]):
        heads = layer["rank"]["heads"]
        axis.plot(
            [layer["layer"]] * len(heads), heads, "o", color=KEPT, ms=5, label="one head's logits" if i == 0 else None
        )
    axis.plot(layers, [layer["rank"]["stacked"] for layer in found["layers"]], "s", color=BEST,
              label="all heads' logits, stacked")  # fmt: skip
    axis.axhline(first["head_dim"], color=KEPT, ls=":", lw=1, label=f"dims of a head: {first['head_dim']}")
    if "index" in first:
        axis.plot(layers, [layer["rank"]["index"] for layer in found["layers"]], "^", color=MISSED,
                  label="index scores")  # fmt: skip
        heads, dim = first["indexer_heads"], first["indexer_dim"]
        axis.axhline(heads * dim, color=MISSED, ls="--", lw=1, label=f"indexer heads × dims: {heads} × {dim}")
    axis.set_xticks(layers)
    axis.set_ylim(bottom=0)
    axis.set_xlabel("layer", fontsize=9)
    axis.set_ylabel("effective rank", fontsize=9)
    figure.legend(loc="outside right center", frameon=False, fontsize=8)
    return figure


def loss(found: dict[str, Any]) -> Figure:
    """Loss by position, dense against sparse, and their difference below."""
    stretches = [row for row in found["loss"]["positions"] if row["asked"]]
    middle = [(row["start"] + row["stop"] - 1) / 2 for row in stretches]
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    dense, sparse = (np.array([row[name] for row in stretches]) for name in ("dense", "sparse"))
    top.plot(middle, dense, "s--", color=DENSE, ms=4, label="attending to every earlier key")
    top.plot(middle, sparse, "o-", color=KEPT, ms=4, label="attending to the selection")
    bottom.plot(middle, sparse - dense, "o-", color=colormaps["Blues"](0.9), ms=4)
    bottom.axhline(0, color=DENSE, lw=0.8)
    top.set_ylabel("loss [nats]", fontsize=9)
    bottom.set_ylabel("sparse − dense\n[nats]", fontsize=9)
    bottom.set_xlabel("position [tokens]", fontsize=9)
    bottom.set_xlim(0, found["seq_len"])
    top.legend(frameon=False, fontsize=8)
    for axis in (top, bottom):
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8)
    return figure
