"""What was measured about a run's selections, in words and tables: numbers only, no reading of them."""

from collections.abc import Iterable
from typing import Any


def percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}".replace("%", " %")


def table(heads: list[str], rows: Iterable[list[str]]) -> str:
    """A Markdown table."""
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [heads, ["---"] * len(heads), *rows])


def described(found: dict[str, Any]) -> str:
    """selection.md."""
    condition = ", ".join(f"{group} {name}" for group, name in found["condition"].items())
    title = (
        f"# Where the attention of {found['run_id']} went\n\n"
        f"{condition}; {found['data']}, length {found['seq_len']}, seed {found['seed']}. "
        f"Measured in float32 on {found['rows']} held-out rows."
    )
    return (
        "\n\n".join(
            [
                title,
                layers(found),
                broken_down(found, "distance", "By distance", "from query to key [tokens]"),
                broken_down(found, "kinds", "By kind of key", "kind"),
                *answered(found),
                *decided(found),
                overlapping(found),
                ranked(found),
                lost(found),
            ]
        )
        + "\n"
    )


def layers(found: dict[str, Any]) -> str:
    """Mass and recall."""
    rows = (
        [str(layer["layer"]), *(percent(layer[name]) for name in ("mass", "oracle_mass", "contested_mass", "recall"))]
        for layer in found["layers"]
    )
    first = found["layers"][0]
    return (
        "## Mass and recall\n\n"
        "Mass: share of the dense attention probability on the selected keys, over all queries; beside it that of the "
        "keys of highest attention, as many per query (best). Contested queries could not keep every earlier key: "
        f"{percent(first['contested'])} of the queries of layer {first['layer']}. Recall: share of the best keys that "
        "were selected, over contested queries.\n\n"
        + table(["layer", "mass", "best mass", "mass, contested queries", "recall"], rows)
    )


def broken_down(found: dict[str, Any], what: str, heading: str, column: str) -> str:
    """Attention, capture and recall by label, one table a layer."""
    parts = [
        f"## {heading}\n\nOver contested queries. Attention: share of all dense attention. Captured: share of that "
        "attention on selected keys. Missed: share of all missed attention. Recall: share of the best keys there that "
        f"were selected. Selected: share of all selected keys.\n\n![{heading}]({what}.png)"
    ]
    for layer in found["layers"]:
        names = ("attention", "captured", "missed", "recall", "kept")
        rows = ([str(row["name"]), *(percent(row[name]) for name in names)] for row in layer[what])
        heads = [column, "attention", "captured", "missed", "recall", "selected"]
        parts.append(f"Layer {layer['layer']}:\n\n{table(heads, rows)}")
    return "\n\n".join(parts)


def answered(found: dict[str, Any]) -> list[str]:
    """Whether the place of the answer was kept; nothing where the data asks at every position."""
    known = [layer for layer in found["layers"] if layer["answer"]]
    if not known:
        return []
    rows = (
        [
            str(layer["layer"]),
            f"{layer['answer']['queries']:.0f}",
            *(percent(layer["answer"][name]) for name in ("attention", "kept", "best")),
        ]
        for layer in known
    )
    heads = ["layer", "queries", "attention on the answer", "queries that selected it", "the best keys hold it"]
    return [
        "## Answers\n\nQueries that are asked and whose target stands in the row right after an earlier occurrence of "
        "the query's token: that key is the answer.\n\n" + table(heads, rows)
    ]


def decided(found: dict[str, Any]) -> list[str]:
    """What a pattern that chooses and an indexer that picks gave; nothing where there is none."""
    parts = []
    for what, heading, of in (
        ("pattern", "Patterns that were chosen", "queries, by their kind"),
        ("indexer", "Indexers that were picked", "rows"),
    ):
        rows, names = [], []
        for layer in found["layers"]:
            for decision in (one for one in layer["decided"] if one["what"] == what):
                names = decision["names"]
                for number, group in enumerate(decision["groups"], 1):
                    place = [str(layer["layer"]), f"{number}/{len(decision['groups'])}"]
                    for label, shares in ({"every": group["every"]} | group["labels"]).items():
                        rows.append([*place, label, *(percent(shares[name]) for name in names)])
        if rows:
            told = table(["layer", "heads", "of", *names], rows)
            parts.append(f"## {heading}\n\nShare of the {of}.\n\n![{heading}](chosen_{what}.png)\n\n{told}")
    return parts


def overlapping(found: dict[str, Any]) -> str:
    """Overlap of every two layers."""
    measured = found["overlap"]
    count = len(found["layers"])
    pairs = ((a, b) for a in range(count) for b in range(a + 1, count))
    kinds = ("selected", "best", "chance")
    rows = ([f"{a}, {b}", *(percent(measured[name][a][b]) for name in kinds)] for a, b in pairs)
    return (
        "## Overlap between layers\n\n"
        "Overlap coefficient |A ∩ B| / min(|A|, |B|) of the keys of two layers, averaged over queries contested in "
        "both; chance: as many keys drawn at random.\n\n![Overlap](overlap.png)\n\n"
        + table(["layers", "selected keys", "best keys", "chance"], rows)
    )


def ranked(found: dict[str, Any]) -> str:
    """Effective ranks."""
    first = found["layers"][0]["rank"]
    rows = (
        [
            str(layer["layer"]),
            ", ".join(f"{value:.1f}" for value in layer["rank"]["heads"]),
            f"{layer['rank']['stacked']:.1f}",
            f"{layer['rank']['index']:.1f}" if "index" in layer["rank"] else "–",
        ]
        for layer in found["layers"]
    )
    heads = len(first["heads"])
    indexer = (
        f" The indexer has {first['indexer_heads']} heads of {first['indexer_dim']} dims; "
        "its ReLU can take the rank of its scores above their product."
        if "index" in first
        else ""
    )
    return (
        "## Effective rank\n\n"
        "exp of the entropy of the normalised singular values (Roy and Vetterli 2007), of matrices query × key without "
        "a causal mask, each query's values less their mean over keys; averaged over "
        f"{found['rank_rows']} rows. At most: {first['head_dim']} for one head's attention logits, "
        f"{heads * first['head_dim']} for those of the {heads} heads stacked above each other, which is what one key "
        f"per token would have to span to serve every head.{indexer}\n\n![Effective rank](rank.png)\n\n"
        + table(["layer", "attention logits, by head", "all heads stacked", "index scores"], rows)
    )


def lost(found: dict[str, Any]) -> str:
    """Loss by position."""
    measured = found["loss"]
    rows = (
        [
            f"{row['start']}–{row['stop'] - 1}",
            str(row["asked"]),
            f"{row['dense']:.4f}",
            f"{row['sparse']:.4f}",
            f"{row['sparse'] - row['dense']:+.4f}",
        ]
        for row in measured["positions"]
        if row["asked"]
    )
    interval = measured["difference_interval"]
    bounds = f" [{interval[0]:+.5f}, {interval[1]:+.5f}]" if interval else ""
    return (
        "## Loss by position\n\n"
        "The same weights, attending to the selection (sparse) and to every earlier key (dense): "
        f"{measured['sparse']:.5f} and {measured['dense']:.5f} nats over {measured['rows']} rows; difference "
        f"{measured['difference']:+.5f}{bounds} nats, with its 95 % t interval over rows of this one run.\n\n"
        "![Loss by position](loss.png)\n\n"
        + table(["positions", "tokens asked", "dense [nats]", "sparse [nats]", "difference [nats]"], rows)
    )
