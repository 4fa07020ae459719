"""Budget curves as a table, a figure and files."""

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from dsa.analysis.output.figures.style import BLUE, CONTROL_MARKERS, GREEN, GREY, ORANGE, PURPLE, VERMILION
from dsa.artifacts.atomic import replacing, write_json
from dsa.budget.curve import SELECTORS, Budget, sentence
from dsa.judging.judge import probed

COLOURS = dict(zip(SELECTORS, (BLUE, GREEN, VERMILION, ORANGE, GREY), strict=True))
NAMES = {
    "oracle": "true attention, one choice for all heads",
    "oracle_by_head": "true attention, one choice a key/value head",
    "sink_window": "first 4 and nearest",
    "window": "nearest",
    "random": "random",
}


def show(budget: Budget, console: Console) -> None:
    """Loss over dense and mass, a row for each budget; then what they say."""
    table = Table(title=f"{budget.model} · {budget.data} · L {budget.seq_len} · dense {budget.dense:.4f} nats a token",
                  title_justify="left")  # fmt: skip
    table.add_column("keys")
    for name in SELECTORS:
        table.add_column(name, justify="right")
    for k in sorted({point.k for point in budget.points}):
        own = {point.selector: point for point in budget.points if point.k == k}
        cells = [f"{own[name].over_dense:+.3f}  {own[name].mass:.2f}" for name in SELECTORS]
        table.add_row(str(k), *cells)
    console.print(table)
    console.print(
        f"Loss over dense [nats a token] of {budget.rows} rows, and mass of {probed(budget.rows)} of them. "
        f"{sentence(budget)}",
        markup=False,
    )


def write(budget: Budget, folder: Path) -> list[Path]:
    """budget.json, budget.csv and budget.png. Returns: what was written."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"budget.{kind}" for kind in ("json", "csv", "png")]
    write_json(files[0], budget.plain(), strict=True)
    lines = ["selector,k,loss,over_dense,mass"]
    lines += [f"{p.selector},{p.k},{p.loss:.6f},{p.over_dense:.6f},{p.mass:.6f}" for p in budget.points]
    with replacing(files[1]) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with replacing(files[2]) as temporary:
        figure(budget).savefig(temporary, format="png")
    return files


NAMED = 3  # layers that are named: those of which the best keys hold least


def figure(budget: Budget) -> Figure:
    """Loss over dense by budget, with the margin; and the mass that each layer's best keys hold."""
    drawn = Figure(figsize=(9.2, 4.3), layout="constrained", dpi=150)
    FigureCanvasAgg(drawn)
    loss, mass = drawn.subplots(1, 2)
    for name in SELECTORS:
        own = sorted((point for point in budget.points if point.selector == name), key=lambda point: point.k)
        over = [max(point.over_dense, budget.margin / 50) for point in own]
        marker = CONTROL_MARKERS.get(name, "o")
        loss.plot([p.k for p in own], over, marker=marker, markersize=4, color=COLOURS[name], label=NAMES[name])
    loss.axhline(budget.margin, color=PURPLE, linestyle="--", linewidth=1, label=f"margin, {budget.margin:g} nats")
    loss.set(xscale="log", yscale="log", xlabel="keys a query", ylabel="loss over dense [nats a token]")
    best = sorted((point for point in budget.points if point.selector == "oracle"), key=lambda point: point.k)
    for layer in range(len(best[0].layers)):
        mass.plot([p.k for p in best], [p.layers[layer] for p in best], color=GREY, linewidth=0.7, alpha=0.7)
    for layer in sorted(range(len(best[0].layers)), key=lambda layer: best[0].layers[layer])[:NAMED]:
        at = best[0].k, best[0].layers[layer]
        mass.annotate(
            f"layer {budget.layers[layer]}", at, xytext=(4, -8), textcoords="offset points", fontsize=6, color=GREY
        )
    mass.plot([p.k for p in best], [p.mass for p in best], color=BLUE, marker="^", markersize=4, label="mean of layers")
    mass.plot([], [], color=GREY, linewidth=0.7, label="each layer")
    mass.set(xscale="log", ylim=(0, 1.02), xlabel="keys a query", ylabel="attention on the best keys")
    for axes in (loss, mass):
        axes.set_xticks(ks := sorted({point.k for point in budget.points}), [str(k) for k in ks])
        axes.minorticks_off()
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(fontsize=7, frameon=False, loc="upper left", bbox_to_anchor=(0, -0.16), ncols=2)
    title = f"{budget.model}, {budget.seq_len} tokens: what an indexer aims at"
    drawn.suptitle(title, fontsize=10, x=0.01, ha="left")
    return drawn
