"""Everything that is measured about a finished run's selections."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dsa.artifacts.results import RunResult
from dsa.backbones import Backbone, Observation
from dsa.build import build_data
from dsa.data import IGNORE, DataModule
from dsa.inspection.answers import Answers, answers
from dsa.inspection.decisions import Decision, decisions
from dsa.inspection.kinds import Kinds, kinds
from dsa.inspection.losses import loss_by_position
from dsa.inspection.overlap import Overlap
from dsa.inspection.query_blocks import QueryBlock, query_blocks
from dsa.inspection.rank import effective_rank, logit_values, score_values
from dsa.inspection.tally import Tally, distance_names, distances, ratio, tally
from dsa.judging.probe import observed
from dsa.training.load import finished, load_run, load_spec

SCHEMA = 1
ROWS = 16  # held-out rows that are looked into, spread evenly over the evaluation rows
RANK_ROWS, RANK_QUERIES = 4, 1024  # of them, and of each the last queries, for the effective rank


@dataclass
class Layer:
    """Sums over rows of one layer; groups averaged."""

    mass: float = 0.0
    oracle_mass: float = 0.0
    queries: float = 0.0
    distance: list[Tally] = field(default_factory=list)
    kind: list[Tally] = field(default_factory=list)
    answer: Answers = field(default_factory=Answers)
    ranks: list[dict[str, Any]] = field(default_factory=list)
    decided: list[list[Decision]] = field(default_factory=list)

    def add(self, block: QueryBlock, tokens: Tensor, targets: Tensor, of: Kinds, bins: int) -> None:
        """Count a block."""
        self.mass += float((block.attention * block.kept).sum(-1).mean(0).sum())
        self.oracle_mass += float((block.attention * block.best).sum(-1).mean(0).sum())
        self.queries += block.attention.shape[1]
        self.distance.append(tally(block, distances(block), bins))
        self.kind.append(tally(block, of.row(tokens).expand(block.attention.shape[1:]), len(of.row_names)))
        self.answer += answers(block, tokens, targets)


def inspect_run(folder: str | Path, allow_targets: tuple[str, ...] = ()) -> dict[str, Any]:
    """Measure a finished run's selections on held-out rows, in float32; plain data for selection.json.

    Args:
        allow_targets: packages of your own whose classes the run's configuration may name.

    Raises:
        FileNotFoundError: the folder holds no finished run, or one without its weights.
        ValueError: the run's attention is dense.
    """
    result = finished(folder)
    model = load_run(folder, allow_targets)
    return measure(model, build_data(load_spec(Path(folder), allow_targets)), result)


def spread(count: int) -> list[int]:
    """Which of so many evaluation rows are looked into."""
    return torch.linspace(0, count - 1, min(ROWS, count)).long().tolist()


def measure(model: Backbone, data: DataModule, result: RunResult) -> dict[str, Any]:
    """Measure a model's selections on its held-out rows.

    Raises:
        ValueError: its attention is dense.
    """
    batches = list(data.eval_loader())
    tokens, targets = (torch.cat([getattr(b, name) for b in batches]) for name in ("tokens", "targets"))
    chosen = spread(len(tokens))
    of, names = kinds(data.source), distance_names(data.seq_len)
    layers = [Layer() for _ in model.sites]
    overlap = Overlap(len(layers))
    for i, row in enumerate(chosen):
        seen = observed(model, tokens[row][None])
        if all(layer.selection is None for layer in seen):
            raise ValueError(f"{result.run_id}: its attention is dense, every query keeps every earlier key.")
        for parts in zip(*(query_blocks(layer) for layer in seen), strict=True):
            overlap.add(list(parts))
            for layer, part in zip(layers, parts, strict=True):
                layer.add(part, tokens[row], targets[row], of, len(names))
        for layer, observation in zip(layers, seen, strict=True):
            layer.decided.append(decisions(observation, of.row(tokens[row]), of.row_names))
        if i < RANK_ROWS:
            for layer, observation in zip(layers, seen, strict=True):
                layer.ranks.append(ranks(observation))
    asks = bool((targets == IGNORE).any())
    return {
        "schema": SCHEMA,
        "run_id": result.run_id,
        "condition": result.condition,
        "model": result.model,
        "data": result.data,
        "seq_len": data.seq_len,
        "seed": result.seed,
        "rows": len(chosen),
        "rank_rows": min(RANK_ROWS, len(chosen)),
        "layers": [summary(i, layer, names, of, asks) for i, layer in enumerate(layers)],
        "overlap": overlap.matrices(),
        "loss": loss_by_position(model, data),
    }


def ranks(seen: Observation) -> dict[str, Any]:
    """Effective ranks of one layer in one row."""
    queries, keys = seen.queries[0, :, -RANK_QUERIES:], seen.keys[0, :, -RANK_QUERIES:]
    single, stacked = logit_values(queries, keys)
    out: dict[str, Any] = {"heads": [effective_rank(values) for values in single], "stacked": effective_rank(stacked)}
    out["head_dim"] = queries.shape[-1]
    if seen.cast is not None:
        length = seen.queries.shape[2]
        rows = slice(max(0, length - RANK_QUERIES), length)
        index = seen.cast.scores(rows, slice(rows.start // seen.cast.unit, rows.stop // seen.cast.unit))[0, 0]
        out["index"] = effective_rank(score_values(index))
        out["indexer_heads"], out["indexer_dim"] = max(one.queries.shape[3:] for one in seen.cast.each)
    return out


def summary(number: int, layer: Layer, names: list[str], of: Kinds, asks: bool) -> dict[str, Any]:
    """One layer's shares."""
    distance, kind = (sum(parts[1:], parts[0]) for parts in (layer.distance, layer.kind))
    measured = layer.ranks[0]
    heads = torch.tensor([one["heads"] for one in layer.ranks]).mean(0).tolist()
    means = {name: sum(one[name] for one in layer.ranks) / len(layer.ranks) for name in ("stacked", "index")
             if name in measured}  # fmt: skip
    return {
        "layer": number,
        "mass": layer.mass / layer.queries,
        "oracle_mass": layer.oracle_mass / layer.queries,
        "contested": distance.queries / layer.queries,
        "contested_mass": ratio(distance.captured.sum(), distance.queries),
        "recall": ratio(distance.found.sum(), distance.best.sum()),
        "distance": distance.rows(names),
        "kinds": kind.rows(of.row_names),
        "answer": layer.answer.row() if asks and layer.answer.queries else None,
        "rank": {**measured, **means, "heads": heads},
        "decided": [sum(rows[1:], rows[0]).row() for rows in zip(*layer.decided, strict=True)],
    }
