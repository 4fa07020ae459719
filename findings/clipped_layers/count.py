"""Count the layers whose indexer clips nearly every key: python findings/clipped_layers/count.py, from the root.

Reads the committed runs of studies on a pretrained model; writes layers.csv, runs.csv and excess.png beside itself.
"""

import json
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

HERE = Path(__file__).parent
STUDIES = {  # what is read, and after how many rows of warm-up
    "pretrained_256": 100,
    "pretrained_512": 100,
    "pretrained_sizes_1024": 100,
    "head_weights_smollm2": 100,
    "negative_weights_pretrained": 100,
    "head_weights_pretrained": 1000,
    "pretrained_sizes_512": 1000,
}
CLIPPED = 0.9  # of the last 64 queries' index scores are exactly 0
BEHIND = 0.05  # of the attention's mass, behind the first and nearest keys of the same number
COLOURS = {"h1d16": "#d95f02", "h2d32": "#7570b3", "h4d32": "#1b9e77", "h4d64": "#1f78b4"}
MARKS = {"signed": "o", "positive": "^", "negative": "v"}
SINK = 0.3  # of the attention's mass, on the first four keys


def masses(runs: pd.DataFrame, label: str) -> dict[int, list[float]]:
    """The mass that a condition keeps, layer by layer, for each draw."""
    return {
        run.seed: [layer["mass"] for layer in json.loads(run["selection.layers"])]
        for _, run in runs[runs.label == label].iterrows()
    }


def layers(study: str) -> pd.DataFrame:
    """A row for each condition, draw and layer."""
    runs = pd.read_parquet(HERE.parent / study / "runs.parquet")
    conditions = set(json.loads((HERE.parent / study / "study.json").read_text())["conditions"]) - {"ultra_light"}
    oracle = runs[runs.label == "oracle"].set_index("seed").swap_val_loss
    nearest, fixed = masses(runs, "window"), masses(runs, "sink_window")
    rows = [
        {
            "study": study,
            "rows": STUDIES[study],
            "condition": run.label,
            "seed": run.seed,
            "layer": place,
            "clipped": layer["zero_share"] > CLIPPED,
            "behind": fixed[run.seed][place] - layer["mass"] > BEHIND,
            "sink": fixed[run.seed][place] - nearest[run.seed][place] > SINK,
            "excess": run.swap_val_loss - oracle[run.seed],
        }
        for _, run in runs[runs.label.isin(conditions)].iterrows()
        for place, layer in enumerate(json.loads(run["selection.layers"]))
    ]
    return pd.DataFrame(rows)


def draw(runs: pd.DataFrame) -> Figure:
    """A dot a run: the loss over that of the keys of highest attention, by how many layers are clipped."""
    figure = Figure(figsize=(7, 3.6), layout="constrained", dpi=150)
    axes = figure.subplots()
    for name, group in runs.groupby("condition"):
        size, _, weights = str(name).partition("-weight")
        weights = weights or "signed"
        axes.scatter(
            group.clipped, group.excess, s=22, alpha=0.7, linewidths=0,
            color=COLOURS[size], marker=MARKS[weights], label=f"{size}, {weights}",
        )  # fmt: skip
    axes.set(xlabel="layers of 30 that clip nearly every key", ylabel="loss over the oracle's [nats a token]")
    axes.set_yscale("log")
    axes.spines[["top", "right"]].set_visible(False)
    named = dict(zip(*axes.get_legend_handles_labels()[::-1], strict=True))
    axes.legend(named.values(), named.keys(), fontsize=7, frameon=False)
    return figure


def main() -> None:
    found = pd.concat([layers(study) for study in STUDIES], ignore_index=True)
    found["both"] = found.clipped & found.behind
    by_condition = found.groupby(["study", "rows", "condition"], sort=False)
    counted = by_condition[["clipped", "behind", "both"]].sum()
    counted["of"] = by_condition.size()
    counted.to_csv(HERE / "layers.csv")
    print(counted.to_string())
    runs = found.groupby(["study", "rows", "condition", "seed"], sort=False).agg({"clipped": "sum", "excess": "first"})
    runs = runs.reset_index()
    runs.round(4).to_csv(HERE / "runs.csv", index=False)
    for rows in sorted(set(STUDIES.values())):
        group = runs[runs.rows == rows]
        ranks = group.clipped.corr(group.excess, "spearman")
        print(f"{rows} rows: {len(group)} runs, rank correlation of clipped layers and excess {ranks:.2f}")
    sinks = found.groupby(["study", "layer"]).sink.mean().gt(0.5).groupby("study").sum()
    print(f"layers of 30 whose first four keys hold {SINK:.0%} of the attention:\n{sinks.to_string()}")
    draw(runs[runs.rows == 1000]).savefig(HERE / "excess.png")


if __name__ == "__main__":
    main()
