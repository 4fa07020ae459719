"""A run's result, put together from what its artifacts and judgements say."""

import math
import statistics
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dsa.artifacts.names import CONTENDED
from dsa.artifacts.results import RunResult
from dsa.artifacts.store import RECORD, Store, read_json
from dsa.backbones import Backbone, Pass, Router, Site
from dsa.build import precision_of
from dsa.data import DataModule
from dsa.graph import Graph
from dsa.judging.cost import flops, index_features, indexer_megabytes, parameters
from dsa.judging.evaluation import make_trainer
from dsa.judging.speed import inference, peak_megabytes
from dsa.ops.dispatch import computes_selected_only
from dsa.spec import Spec
from dsa.training.blank import blank
from dsa.training.caveats import warnings_of
from dsa.training.log import column

Row = dict[str, str]
SHARES = ("accuracy", "exact_match")  # of right answers, where they are measured
DEPTH = "exact_match_depth_"


@dataclass(frozen=True)
class Findings:
    """What was measured for a run: one judgement each, as in its graph; None where it has none.

    Args:
        base_training: how long the base was trained and what it reached.
        rows: of the metrics of the run's last stage, control_rows: of the control's.
    """

    final: dict[str, Any]
    dense: dict[str, Any] | None
    swap: dict[str, Any] | None
    window: dict[str, Any] | None
    sinks: dict[str, Any] | None
    control: dict[str, Any] | None
    base_training: dict[str, Any]
    rows: list[Row]
    control_rows: list[Row]


def assemble(
    spec: Spec, graph: Graph, folder: Path, data: DataModule, model: Backbone, found: Findings, timed: bool
) -> RunResult:
    """The result of a finished run.

    Args:
        model: as its final judgement saw it.
        timed: measure a forward pass and a step's memory too.
    """
    result = blank(spec, graph, folder)
    result.status = "finished"
    result.chance_loss, result.unigram_loss, result.corpus = data.chance_loss, data.unigram_loss, data.fingerprint
    fill(result, "val", found.final, "loss", "perplexity", *SHARES)
    result.recall_slice_loss = found.final["val"].get("recall_slice_loss")
    result.base_training = found.base_training
    result.certificate = found.final.get("certificate", {})
    compare(result, found, spec.dense, graph.joint is not None)
    result.params = parameters(model)
    result.selection = found.final.get("selection", {})
    mean = result.selection.get("mean", {})
    result.density, result.mean_k = mean.get("density", 1.0), mean.get("mean_k", (spec.seq_len + 1) / 2)
    layers = result.selection.get("layers", [])
    chosen, picked = (
        {site: layer[name] for site, layer in enumerate(layers) if layer.get(name) is not None}
        for name in ("chosen", "picked")
    )
    result.flops = flops(model, spec.seq_len, result.density or 1.0, chosen, picked)
    device = make_trainer(spec.trainer, spec.dtype).strategy.root_device
    model = model.to(device)
    stage = found.rows[-1]["stage"] if found.rows else ""
    steps, rates = (column(found.rows, stage, f"speed/{name}") for name in ("step_ms", "tokens_per_s"))
    result.time = {
        "step_ms": statistics.median(steps) if steps else None,
        "tokens_per_s": statistics.median(rates) if rates else None,
        "contended": contended(found.rows, stage),
    }
    if timed:
        measure(spec, data, model, device, result)
    result.memory["indexer_mb"] = indexer_megabytes(model, spec.seq_len, picked)
    result.speed_is_real = is_speed(spec, result, model, device)
    if graph.joint is not None and found.control is not None:
        control = column(found.control_rows, "sparse", "speed/step_ms")
        result.time["dense_step_ms"] = statistics.median(control) if control else None
        result.time["contended"] = bool(result.time["contended"] or contended(found.control_rows, "sparse"))
    result.stability = stability(found.rows, stage)
    result.provenance["threads_of"] = threads_of(spec, graph)
    judged = [need for need in (graph.dense, graph.swap, graph.window, graph.sinks) if need is not None]
    result.provenance["code"] = Store(spec.outputs, spec.stale).code_behind(graph.code, [*graph.parts, *judged])
    result.warnings = warnings_of(spec, result, model)
    return result


def threads_of(spec: Spec, graph: Graph) -> dict[str, int]:
    """How many threads computed each artifact, the dense control's too, where it is there and says so."""
    store, out = Store(spec.outputs, spec.stale), {}
    named = {"base": graph.base, "indexers": graph.indexers, "joint": graph.joint, "control": graph.control}
    for kind, need in named.items():
        record = None if need is None else read_json(store.folder(need) / RECORD)
        if record is not None and "threads" in record["provenance"]:  # older code kept, by stale=keep, does not say it
            out[kind] = record["provenance"]["threads"]
    return out


def compare(result: RunResult, found: Findings, dense: bool, trained_sparse: bool) -> None:
    """Fill in what the run is compared with."""
    if found.dense is not None:
        fill(result, "base_val", found.dense, "loss", *SHARES)
    if found.swap is not None and found.window is not None:
        fill(result, "swap_val", found.swap, "loss", *SHARES)
        fill(result, "swap_window", found.window, "loss", *SHARES)
        if found.sinks is not None:
            fill(result, "swap_sink_window", found.sinks, "loss", *SHARES)
        result.swap_selection = found.swap.get("selection", {})
    # Where the backbone was never touched, its own dense loss is the ceiling; the dense control is its own.
    ceiling = found.final if dense else found.control if trained_sparse else found.dense
    if ceiling is not None and result.val_loss is not None:
        fill(result, "dense_val", ceiling, "loss", "perplexity", *SHARES)
        result.delta_loss = result.val_loss - ceiling["val"]["loss"]


def fill(result: RunResult, prefix: str, judgement: dict[str, Any], *names: str) -> None:
    """Take over what a judgement's evaluation measured; exact match by depth, and what was measured of each row, stand
    in dictionaries of their own."""
    measured = judgement["val"]
    for name, of_rows in judgement.get("samples", {}).items():
        result.samples[name if name == "depth" else f"{prefix}_{name}"] = of_rows
    for name in names:
        setattr(result, f"{prefix}_{name}", measured.get(name))
    depths = {name.rpartition("_")[2]: value for name, value in measured.items() if name.startswith(DEPTH)}
    if depths:
        result.exact_match_by_depth[prefix] = depths


def contended(rows: list[Row], stage: str) -> bool:
    """Whether other processes used the processor while a stage trained."""
    others = column(rows, stage, "speed/others")
    return bool(others) and others[-1] > CONTENDED


def measure(spec: Spec, data: DataModule, model: Backbone, device: torch.device, result: RunResult) -> None:
    """Fill in time and memory, measured on one row of held-out data; of a backbone that never learns none is for it."""
    tokens = next(iter(data.eval_loader())).tokens[:1].to(device)
    with torch.autocast(device.type, torch.bfloat16, enabled=spec.dtype == "bf16"):
        result.time |= inference(model, tokens, spec.sparse)
        learns = spec.recipe.dense_steps > 0 or spec.recipe.sparse_steps > 0
        with nullcontext() if learns else frozen(model.groups()["backbone"]):
            result.memory["peak_mb"] = peak_megabytes(lambda: one_step(model, tokens, spec.sparse, learns), device)


def one_step(model: Backbone, tokens: torch.Tensor, sparse: bool, learns: bool) -> None:
    """Forward and backward over one row, as in training; without logits where the backbone learns nothing."""
    with model.memory.saving():
        told: list[torch.Tensor] = []
        how = Pass(sparse=sparse, teach=sparse, logits=learns, targets=tokens if learns else None, told=told.append)
        logits, losses = model.run(tokens, how)
    total = torch.stack([(told[0] if told else logits).float().mean(), *losses.values()]).sum()
    if total.requires_grad:
        total.backward()
    model.zero_grad(set_to_none=True)


@contextmanager
def frozen(weights: list[nn.Parameter]) -> Iterator[None]:
    """No gradients for some weights within."""
    learning = [weight for weight in weights if weight.requires_grad]
    for weight in learning:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in learning:
            weight.requires_grad_(True)


def is_speed(spec: Spec, result: RunResult, model: Backbone, device: torch.device) -> bool:
    """Whether the times may be read as speed: the selected pairs alone are computed, in the format that is named."""
    return (
        spec.uses_indexer
        and not spec.dense
        and all(selects_and_learns_fast(spec, model.router(site.index), site, device) for site in model.sites)
        and not spec.precision.make().simulated(spec.ops, device)
        and (result.density or 1.0) < 1.0
    )


@torch.no_grad()
def selects_and_learns_fast(spec: Spec, router: Router | None, site: Site, device: torch.device) -> bool:
    """Whether a site's keys are ranked, attended to and learned from by the backend that computes no others."""
    learner = scorer = None
    if router is not None and router.indexer is not None:
        features = index_features(router.indexer, site.width)
        scorer, learner = router.indexer.scorer(features), precision_of(spec, training=True).cast(features)
    here, emphasis = torch.empty(0, device=device), spec.objective.make().emphasises
    return computes_selected_only(
        spec.ops, here, scorer=scorer, learner=learner, cap=site.cap, emphasis=learner is not None and emphasis
    )


def stability(rows: list[Row], stage: str) -> dict[str, float | None]:
    """How steady the training loss of the last stage was.

    loss_std: standard deviation of the loss over the last fifth, less its linear trend [nats]. spikes: steps whose
    loss exceeds the median of the 20 before by more than 5 median absolute deviations. grad_norm_p99: before clipping.
    """
    losses = column(rows, stage, "train/loss") or column(rows, stage, "train/indexer_loss")
    norms = column(rows, stage, "train/grad_norm_backbone") or column(rows, stage, "train/grad_norm_indexers")
    norms = sorted(norms)
    tail = losses[-max(len(losses) // 5, 3) :]
    spread = None
    if len(tail) >= 3:
        slope, start = statistics.linear_regression(range(len(tail)), tail)
        rest = [loss - start - slope * i for i, loss in enumerate(tail)]
        spread = math.sqrt(sum(r * r for r in rest) / (len(rest) - 2))
    spikes = 0
    for i in range(20, len(losses)):
        middle = statistics.median(losses[i - 20 : i])
        deviation = statistics.median(abs(x - middle) for x in losses[i - 20 : i])
        spikes += losses[i] > middle + 5 * max(deviation, 1e-9)
    p99 = norms[min(len(norms) - 1, int(0.99 * len(norms)))] if norms else None
    return {"loss_std": spread, "spikes": spikes, "grad_norm_p99": p99}
