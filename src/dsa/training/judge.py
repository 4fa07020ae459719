"""What is measured about a trained model: quality, selection, and what a window would have reached."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from dsa.build import build_model
from dsa.data import DataModule
from dsa.model import SparseTransformer
from dsa.ops import Recency, Scorer
from dsa.selectors import Selector, SelectorContext
from dsa.training.fit import evaluate, make_trainer
from dsa.training.plan import Plan
from dsa.training.probe import averaged, probe
from dsa.training.world import first_process, wait_for_all

PROBE_ROWS = 8  # held-out rows on which a selection is measured, spread evenly over the evaluation rows


def judged(plan: Plan, data: DataModule, model: SparseTransformer, sparse: bool) -> dict[str, Any]:
    """Validation metrics, and of sparse attention what each layer selected."""
    out: dict[str, Any] = {"val": evaluate(plan, data, model, sparse)}
    if sparse:
        tokens = probe_rows(data)
        device = make_trainer(plan.cfg, plan.dtype).strategy.root_device
        layers = probe(model.to(device), tokens.to(device))
        out["selection"] = {"mean": averaged(layers), "layers": [layer._asdict() for layer in layers]}
    return out


def probe_rows(data: DataModule) -> Int[Tensor, "row time"]:
    """A few evaluation rows from all over the held-out part."""
    rows = torch.cat([batch.tokens for batch in data.eval_loader()])
    return rows[torch.linspace(0, len(rows) - 1, min(PROBE_ROWS, len(rows))).long()]


def judged_untouched(plan: Plan, data: DataModule, model: SparseTransformer) -> dict[str, Any]:
    """The selection on a backbone that never trained with it, beside the nearest keys at the same budget."""
    return judged(plan, data, model, sparse=True) | {"window": window_instead(plan, data, model)}


def recorded(path: Path, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `measure` gives, kept in a file so that an interrupted run need not measure again."""
    if not path.exists():
        values = measure()
        wait_for_all()
        if first_process():
            temporary = path.with_suffix(f".{os.getpid()}")
            temporary.write_text(json.dumps(values))
            os.replace(temporary, path)
        wait_for_all()
    return json.loads(path.read_text())


class NearestInstead(Selector):
    """Another selector's budget, spent on the nearest keys; a budget that depends on scores becomes the pattern's."""

    uses_indexer = False

    def __init__(self, selector: Selector) -> None:
        super().__init__()
        self.selector = selector

    def limit(self, context: SelectorContext) -> Int[Tensor, "batch group time"]:
        return context.own if self.selector.trims else self.selector.limit(context)

    def scorer(self, features: Scorer | None, attention: Any, context: SelectorContext) -> Scorer:
        return Recency()


def window_instead(plan: Plan, data: DataModule, model: SparseTransformer) -> dict[str, float]:
    """Validation metrics of the same weights if the budget went to the nearest keys: the honest opponent on text."""
    twin = build_model(plan.cfg, data.vocab_size)
    twin.load_state_dict(model.state_dict())
    for attention in twin.attentions():
        attention.selector, attention.indexer = NearestInstead(attention.selector), None
    with torch.no_grad():
        return evaluate(plan, data, twin, sparse=True)
