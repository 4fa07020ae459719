"""Count the layers whose indexer clips nearly every key: python findings/clipped_layers/count.py, from the root.

Reads the committed runs of studies on a pretrained model, prints what the page beside it says, and writes layers.csv,
runs.csv and excess.png.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

HERE = Path(__file__).parent
STUDIES = {  # what is read, and after how many rows of warm-up
    "head_weights_pretrained": 1000,
    "pretrained_sizes_512": 1000,
    "negative_weights_long": 1000,
    "pretrained_256": 100,
    "pretrained_512": 100,
    "pretrained_sizes_1024": 100,
    "head_weights_smollm2": 100,
    "negative_weights_pretrained": 100,
    "clipping_by_scale": 100,
    "field_indexers_pretrained": 300,
    "clipping_by_rate": 300,
    "sharing_leaders_pretrained": 400,
}
CLIPPED = 0.9  # of the last 64 queries' index scores are exactly 0
BEHIND = 0.05  # of the attention's mass, behind the first and nearest keys of the same number
SHORT = 0.9  # of the mass that as many keys could hold
SINK = 0.3  # of the mass, on the first four keys: what they and the nearest hold beyond as many of the nearest
RATE, AS_SHIPPED = "recipe.warmup.indexer_lr", 0.005
LAST = 64  # queries whose index scores are looked at
COLOURS = {"h1d16": "#d95f02", "h2d32": "#7570b3", "h4d32": "#1b9e77", "h4d64": "#1f78b4"}
MARKS = {"signed": "o", "positive": "^", "negative": "v"}
KEPT = ["zero_share", "mass", "oracle_mass", "kl"]
DRAW = ["tokens", "rows", "size", "weights", "seed"]


def layers(study: str) -> pd.DataFrame:
    """A row for each condition with an indexer, each draw and layer."""
    runs = pd.read_parquet(HERE.parent / study / "runs.parquet")
    plan = json.loads((HERE.parent / study / "study.json").read_text())
    rows = []
    for seed, group in runs.groupby("seed"):
        by_label = group.set_index("label")
        told = {label: json.loads(text) for label, text in by_label["selection.layers"].dropna().items()}
        controls = {str(label).partition("-")[0]: label for label in by_label.index}  # one model: alike in all contexts
        for label, options in [one for one in plan["conditions"].items() if one[0] in told]:
            alike = plan["common"].get("indexer", label) if "indexer.weight" in options else label
            size, weights = options.get("indexer", alike), options.get("indexer.weight", "signed")
            if options.get(RATE, AS_SHIPPED) != AS_SHIPPED:
                weights += f", rate {options[RATE]}"
            excess = by_label.swap_val_loss[label] - by_label.swap_val_loss[controls["oracle"]]
            for place, layer in enumerate(told[label]):
                if layer["zero_share"] is None:  # it follows another layer
                    continue
                fixed, nearest = (told[controls[name]][place]["mass"] for name in ("sink_window", "window"))
                named = (study, by_label.seq_len[label], STUDIES[study], label, size, weights, seed, place)
                rows.append((*named, *(layer[key] for key in KEPT), fixed, nearest, excess))
    columns = ["study", "tokens", "rows", "condition", "size", "weights", "seed", "layer"]
    return pd.DataFrame(rows, columns=[*columns, *KEPT, "fixed", "nearest", "excess"])


def judged(found: pd.DataFrame) -> pd.DataFrame:
    """With what a layer is called."""
    pairs = LAST * (found.tokens - (LAST - 1) / 2)
    return found.assign(
        clipped=found.zero_share > CLIPPED,
        single=np.isclose(found.zero_share, 1 - LAST / pairs, atol=1e-6),
        behind=found.fixed - found.mass > BEHIND,
        short=found.mass < SHORT * found.oracle_mass,
        sink=found.fixed - found.nearest > SINK,
    )


def distinct(found: pd.DataFrame) -> pd.DataFrame:
    """Without the runs that two studies share."""
    return found.drop_duplicates([*DRAW, "layer"])


def later(found: pd.DataFrame) -> pd.DataFrame:
    """What became of a layer of the same draw between 100 and 1000 rows, two trainings with the same first weights."""
    key = [*(name for name in DRAW if name != "rows"), "layer"]
    early, late = (found[found.rows == rows] for rows in (100, 1000))
    both = early.merge(late, on=key, suffixes=("_100", "_1000"))
    names = {(True, True): "stays", (True, False): "comes free", (False, True): "new", (False, False): "never"}
    both["was"] = [names[pair] for pair in zip(both.clipped_100, both.clipped_1000, strict=True)]
    columns = ["kl_100", "kl_1000", "mass_100", "mass_1000", "oracle_mass_1000"]
    groups = both.groupby([both.weights == "signed", "was"])
    return groups[columns].mean().assign(layers=groups.size()).rename_axis(["signed", "was"])


def within(runs: pd.DataFrame) -> float:
    """The correlation of clipped layers and the logarithm of the excess, among draws of one size, weights and study."""
    apart = runs.groupby(["study", "condition"])
    clipped = runs.clipped - apart.clipped.transform("mean")
    excess = np.log(runs.excess) - np.log(runs.excess).groupby([runs.study, runs.condition]).transform("mean")
    return float(np.corrcoef(clipped, excess)[0, 1])


def gained(found: pd.DataFrame) -> pd.DataFrame:
    """Mass that negative weights gain one head of 16 over signed ones, by whether signed ones clip the layer."""
    one = found[(found.study == "negative_weights_pretrained") & (found["size"] == "h1d16")]
    wide = one.pivot(index=["seed", "layer"], columns="weights", values=["mass", "clipped"])
    gain = (wide["mass"]["negative"] - wide["mass"]["signed"]).astype(float)
    return gain.groupby(wide["clipped"]["signed"].rename("clipped").astype(bool)).agg(["size", "mean", "sum"])


def draw(runs: pd.DataFrame) -> Figure:
    """A dot a run: the loss over that of the keys of highest attention, by how many layers are clipped."""
    figure = Figure(figsize=(7, 3.6), layout="constrained", dpi=150)
    axes = figure.subplots()
    for (size, weights), group in runs.groupby(["size", "weights"]):
        axes.scatter(
            group.clipped, group.excess, s=22, alpha=0.7, linewidths=0,
            color=COLOURS[str(size)], marker=MARKS[str(weights)], label=f"{size}, {weights}",
        )  # fmt: skip
    axes.set(xlabel="layers of 30 that clip nearly every key", ylabel="loss over the oracle's [nats a token]")
    axes.set_yscale("log")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=7, frameon=False)
    return figure


def main() -> None:
    found = judged(pd.concat([layers(study) for study in STUDIES], ignore_index=True))
    found["both"] = found.clipped & found.behind
    by_condition = found.groupby(["study", "tokens", "rows", "condition"], sort=False)
    counted = by_condition[["clipped", "single", "behind", "both", "short"]].sum().assign(of=by_condition.size())
    counted.to_csv(HERE / "layers.csv")
    print(counted.to_string())

    apart = distinct(found)
    sums = apart.groupby(["rows", "tokens"])[["clipped", "single", "behind", "both", "short"]].sum()
    print(f"\nwithout runs that two studies share:\n{sums.to_string()}")
    sinks = apart[apart.rows == 1000].groupby("tokens")
    print(f"\nafter 1000 rows: sinks\n{sinks.apply(lambda group: group.groupby('layer').sink.all().sum()).to_string()}")
    print(f"clipped ones among them: {(apart.clipped & apart.sink)[apart.rows == 1000].sum()}")
    print(f"\nbetween 100 and 1000 rows:\n{later(apart).round(3).to_string()}")
    print(f"\nmass gained by negative weights, by whether signed ones clip:\n{gained(found).round(3).to_string()}")

    own = ["study", "condition", "size", "weights", "rows", "seed"]
    runs = apart[apart.rows.isin([100, 1000])].groupby(own, sort=False).agg({"clipped": "sum", "excess": "first"})
    runs = runs.reset_index()
    runs.drop(columns=["size", "weights"]).round(4).to_csv(HERE / "runs.csv", index=False)
    for rows, group in [(rows, runs[runs.rows == rows]) for rows in (100, 1000)]:
        print(f"\n{rows} rows: {len(group)} runs, correlation within a size, weights and study {within(group):.2f}")
    draw(runs[runs.rows == 1000]).savefig(HERE / "excess.png")


if __name__ == "__main__":
    main()
