"""python -m dsa.analysis heads outputs/<study>/<run> ...: signs, clipped keys and ablations, head by head."""

import argparse
import csv
import json
from functools import partial
from pathlib import Path
from typing import Any

LAYER = {
    "mass": "mass", "oracle_mass": "oracle", "mass_clamped": "w < 0 at 0", "mass_absolute": "|w|", "tied": "tied",
    "some_negative": "some w < 0", "all_negative": "all w < 0", "changed": "keys that w < 0 keeps out",
    "mass_asked": "asked: mass", "oracle_mass_asked": "oracle", "mass_absolute_asked": "|w|",
}  # fmt: skip
HEAD = {
    "negative": "w < 0", "clipped": "clipped", "clipped_wanted": "of wanted", "clipped_attention": "of attention",
    "negative_score": "negative score", "mass_alone": "mass alone", "mass_without": "without it",
    "mass_clamped": "w < 0 at 0", "mass_positive": "where w ≥ 0", "mass_negative": "where w < 0",
    "tied_negative": "tied there", "negative_asked": "asked: w < 0", "mass_positive_asked": "mass, w ≥ 0",
    "mass_negative_asked": "w < 0",
}  # fmt: skip
PLACE = {
    "keys": "keys", "attention": "attention", "wanted": "wanted", "kept": "kept", "lifted": "raised by w > 0",
    "lowered": "lowered by w < 0", "let_in": "let in at 0", "put_out": "put out at 0",
}  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Print the tables of each run; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m dsa.analysis heads", description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", help="folders of finished runs")
    parser.add_argument(
        "--losses", choices=("model", "layers", "heads"), default="model",
        help="weights are changed in all layers at once (default), in each layer too, or each head there too",
    )  # fmt: skip
    parser.add_argument("--to", type=Path, metavar="FOLDER", help="leave tables (csv), a json and a figure a run there")
    parser.add_argument(
        "--allow-target", action="append", default=[], metavar="PACKAGE", help="of your own, named by a run's config"
    )
    given = parser.parse_args(arguments)
    from dsa.analysis.output.cells import wide_console  # late: --help needs no torch
    from dsa.inspection.heads import heads_of

    told: list[dict[str, Any]] = []
    for run in given.runs:
        told.append(heads_of(run, given.losses, tuple(given.allow_target)))
        for table in tables(told[-1]):
            wide_console().print(table)
    for path in [] if given.to is None else left(told, given.to):
        print(path)
    return 0


def tables(found: dict[str, Any]) -> list[Any]:
    """What the terminal shows of a run; columns that hold nothing for it are left out."""
    return [
        shares(f"{found['run_id']}: layers", ["layer"], LAYER, found["layers"]),
        shares("Heads", ["layer", "head"], HEAD, found["heads"]),
        shares("Places of keys", ["layer", "place"], PLACE, found["places"]),
        losses(found["losses"]),
    ]


def shares(title: str, first: list[str], columns: dict[str, str], rows: list[dict[str, Any]]) -> Any:
    """A table of shares in percent."""
    from dsa.analysis.output.cells import titled

    there = [name for name in columns if any(row.get(name) is not None for row in rows)]
    table = titled(title, *first, *(columns[name] for name in there))
    for row in rows:
        values = (row.get(name) for name in there)
        table.add_row(*(str(row[name]) for name in first), *("–" if x is None else f"{x:.1%}" for x in values))
    return table


def losses(rows: list[dict[str, Any]]) -> Any:
    """What changed weights cost."""
    from dsa.analysis.output.cells import number, titled

    table = titled("Loss with changed weights [nats]", "weights", "layer", "head", "loss", "difference")
    for row in rows:
        where = ("all" if row[name] is None else str(row[name]) for name in ("layer", "head"))
        table.add_row(row["change"], *where, number(row["loss"], 5), f"{row['difference']:+.5f}")
    return table


def left(told: list[dict[str, Any]], folder: Path) -> list[Path]:
    """Write every run's numbers and figure; their paths."""
    from dsa.analysis.output.replaced import replaced
    from dsa.inspection.heads_figure import draw

    folder.mkdir(parents=True, exist_ok=True)
    paths = [replaced(folder / "heads.json", lambda path: path.write_text(json.dumps(told, allow_nan=False) + "\n"))]
    for name in ("layers", "heads", "places", "losses"):
        rows = [{"run_id": found["run_id"]} | row for found in told for row in found[name]]
        paths.append(replaced(folder / f"{name}.csv", partial(write, rows)))
    return [*paths, *(path for found in told for path in draw(found, folder))]


def write(rows: list[dict[str, Any]], path: Path) -> None:
    """A csv with a column for each name that any row has, of six digits."""
    names = dict.fromkeys(name for row in rows for name in row)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)
