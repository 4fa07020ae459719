"""A run's result, put together from what its stages measured."""

import math
import statistics
from typing import Any

import torch

from dsa.build import instantiate, needs_indexer
from dsa.config import choice
from dsa.data import DataModule
from dsa.model import SparseTransformer
from dsa.ops.dispatch import computes_selected_only
from dsa.selectors import Dense
from dsa.selectors.adaptive import Adaptive
from dsa.training.fit import make_trainer
from dsa.training.log import RunLog
from dsa.training.measure import flops, index_features, inference, peak_megabytes
from dsa.training.plan import Plan, condition, sparse_run
from dsa.training.provenance import provenance
from dsa.training.result import RunResult

CONTENDED = 0.1  # share of the cores that others may use before a run's times count as contended


def blank(plan: Plan) -> RunResult:
    """A result that holds only what the configuration says."""
    cfg = plan.cfg
    return RunResult(
        run_id=plan.run_id,
        status="failed",
        study=plan.study,
        condition=condition(cfg),
        model=choice(cfg, "model"),
        data=choice(cfg, "data"),
        recipe=choice(cfg, "recipe"),
        seq_len=cfg.seq_len,
        seed=cfg.seed,
        folder=str(plan.folder),
        dtype=plan.dtype,
        config_hash=plan.config_hash,
        provenance=provenance(plan.code),
    )


def assemble(
    plan: Plan,
    data: DataModule,
    model: SparseTransformer,
    log: RunLog,
    final: dict[str, Any],
    swap: dict[str, Any] | None,
    base: RunResult | None,
    control: RunResult | None,
) -> RunResult:
    """The result of a finished run.

    Args:
        final: measured after the last stage.
        swap: measured with the selection on and the backbone untouched.
        base, control: the dense runs that this one stands on; a run that is its own control has None.
    """
    result = blank(plan)
    result.status = "finished"
    result.chance_loss, result.unigram_loss, result.corpus = data.chance_loss, data.unigram_loss, data.fingerprint
    for name, value in final["val"].items():
        setattr(result, name if name.startswith("recall") else f"val_{name}", value)
    compare(result, swap, base, control, is_dense(plan), any(stage.sparse for stage in plan.stages))
    result.params = parameters(model)
    result.selection = final.get("selection", {})
    mean = result.selection.get("mean", {})
    result.density, result.mean_k = mean.get("density", 1.0), mean.get("mean_k", (plan.cfg.seq_len + 1) / 2)
    cost(plan, data, model, log, result)
    if control is not None and any(stage.sparse for stage in plan.stages):
        result.time["dense_step_ms"] = control.time.get("step_ms")
        result.time["contended"] = bool(result.time["contended"] or control.time.get("contended"))
    result.stability = stability(log, plan.stages[-1].name)
    result.warnings = warnings_of(plan, result)
    return result


def compare(
    result: RunResult,
    swap: dict[str, Any] | None,
    base: RunResult | None,
    control: RunResult | None,
    dense: bool,
    trained_sparse: bool,
) -> None:
    """Fill in what the run is compared with."""
    if base is not None:
        result.base_run_id, result.base_val_loss = base.run_id, base.val_loss
        result.base_val_accuracy = base.val_accuracy
    if swap is not None:
        result.swap_val_loss, result.swap_val_accuracy = swap["val"]["loss"], swap["val"]["accuracy"]
        result.swap_selection = swap["selection"]
        result.swap_window_loss = swap["window"]["loss"]
        result.swap_window_accuracy = swap["window"]["accuracy"]
    if not trained_sparse:
        control = base  # the backbone was never touched: its own dense loss is the ceiling
    if dense:  # the run is the dense control itself
        result.dense_val_loss, result.delta_loss = result.val_loss, 0.0
        result.dense_val_perplexity, result.dense_val_accuracy = result.val_perplexity, result.val_accuracy
    elif control is not None and control.val_loss is not None and result.val_loss is not None:
        result.control_run_id, result.dense_val_loss = control.run_id, control.val_loss
        result.dense_val_perplexity, result.dense_val_accuracy = control.val_perplexity, control.val_accuracy
        result.delta_loss = result.val_loss - control.val_loss


def is_dense(plan: Plan) -> bool:
    """Whether the run attends to everything, by its configuration."""
    return not sparse_run(plan.cfg) or (
        isinstance(instantiate(plan.cfg, "selector"), Dense) and plan.cfg.pattern._target_.endswith(".Causal")
    )


def parameters(model: SparseTransformer) -> dict[str, float]:
    """Parameters of all layers; the indexers' without their key norms, which stand apart."""
    counts = [a.indexer.parameter_counts() for a in model.attentions() if a.indexer is not None]
    indexer, norm = (sum(part) for part in zip(*counts, strict=True)) if counts else (0, 0)
    total = sum(p.numel() for p in model.parameters())
    return {"total": total, "indexer": indexer, "indexer_norm": norm, "indexer_share": indexer / total}


def cost(plan: Plan, data: DataModule, model: SparseTransformer, log: RunLog, result: RunResult) -> None:
    """Fill in operations, time and memory, measured on one row of held-out data."""
    device = make_trainer(plan.cfg, plan.dtype).strategy.root_device
    model.to(device)
    tokens = next(iter(data.eval_loader())).tokens[:1].to(device)
    sparse = sparse_run(plan.cfg)
    result.flops = flops(model, plan.cfg.seq_len, result.density or 1.0)
    steps = log.column(plan.stages[-1].name, "speed/step_ms")
    rates = log.column(plan.stages[-1].name, "speed/tokens_per_s")
    with torch.autocast(device.type, torch.bfloat16, enabled=plan.dtype == "bf16"):
        result.time = {
            "step_ms": statistics.median(steps) if steps else None,
            "tokens_per_s": statistics.median(rates) if rates else None,
            **inference(model, tokens, sparse),
        }
        result.memory["peak_mb"] = peak_megabytes(lambda: one_step(model, tokens, sparse), device)
    others = log.column(plan.stages[-1].name, "speed/others")
    result.time["contended"] = bool(others) and others[-1] > CONTENDED
    width = model.embedding.embedding_dim
    entries = sum(index_features(a.indexer, width).keys.shape[-1] for a in model.attentions() if a.indexer is not None)
    held = sum(p.numel() for p in model.indexer_parameters()) + plan.cfg.seq_len * entries
    result.memory["indexer_mb"] = held * 4 / 2**20
    result.speed_is_real = (
        sparse
        and not is_dense(plan)
        and computes_selected_only(plan.cfg.ops, torch.empty(0, device=device))
        and not instantiate(plan.cfg, "precision").simulated
        and needs_indexer(plan.cfg)
        and (result.density or 1.0) < 1.0
    )


def one_step(model: SparseTransformer, tokens: torch.Tensor, sparse: bool) -> None:
    """Forward and backward over one row, as in training."""
    from dsa.model import Pass

    logits, loss = model.run(tokens, Pass(sparse=sparse, teach=sparse))
    (logits.float().mean() + loss).backward()
    model.zero_grad(set_to_none=True)


def stability(log: RunLog, stage: str) -> dict[str, float | None]:
    """How steady the training loss of the last stage was.

    loss_std: standard deviation of the loss over the last fifth, less its linear trend [nats]. spikes: steps whose
    loss exceeds the median of the 20 before by more than 5 median absolute deviations. grad_norm_p99: before clipping.
    """
    losses = log.column(stage, "train/loss") or log.column(stage, "train/indexer_loss")
    norms = sorted(log.column(stage, "train/grad_norm_backbone") or log.column(stage, "train/grad_norm_indexers"))
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


def warnings_of(plan: Plan, result: RunResult) -> list[str]:
    """What a reader must know before believing the numbers."""
    out = []
    cfg = plan.cfg
    if result.val_loss is not None and result.unigram_loss is not None and result.val_loss > result.unigram_loss - 0.01:
        out.append(
            f"validation loss {result.val_loss:.4f} is not below the unigram loss {result.unigram_loss:.4f}: "
            "the loss carries no information about attention, and nothing may be ranked by it."
        )
    if not sparse_run(cfg):
        return out
    everything = isinstance(instantiate(cfg, "selector"), Dense)
    if result.density is not None and result.density >= 1.0 and not everything:
        out.append(
            f"window or budget reaches seq_len = {cfg.seq_len}: every query keeps every key, this attention is dense."
        )
    selector = instantiate(cfg, "selector")
    if isinstance(selector, Adaptive) and result.mean_k is not None:
        target = selector.target(instantiate(cfg, "pattern").own_budget(torch.arange(cfg.seq_len)))
        if target is not None and abs(result.mean_k / target - 1) > 0.05:
            out.append(
                f"selector {choice(cfg, 'selector')} keeps {result.mean_k:.1f} keys a query, "
                f"its target is {target:.1f}: not at equal density with topk. Move "
                f"selector.min_k = {selector.min_k} or selector.max_k = {selector.max_k}, or train for longer."
            )
    if result.dense_val_loss is None and cfg.recipe.sparse.steps:
        out.append("no dense control was found: delta_loss is null (dense_control=true trains one).")
    uses = instantiate(cfg, "selector").uses_indexer
    if uses and instantiate(cfg, "precision").simulated:
        out.append(
            f"precision {choice(cfg, 'precision')}: its rounding is simulated in float32 arithmetic; "
            "quality counts, speed does not."
        )
    if uses and not result.speed_is_real and (result.density or 1.0) < 1.0:
        out.append("times are not a speed claim: this backend computes attention under a mask or simulates a format.")
    if uses and not cfg.recipe.warmup.steps and not cfg.recipe.sparse.steps:
        out.append("no stage trained the indexers.")
    if result.time.get("contended"):
        out.append(
            "other processes used the processor while this run or its control trained: their times are not comparable."
        )
    return out
