"""What a dashboard is told about a run: who it is, its configuration flat, its final values."""

from dataclasses import asdict
from typing import Any

from dsa.config import choice, resolved
from dsa.training.plan import Plan, condition
from dsa.training.provenance import git_commit
from dsa.training.result import RunResult


def identity(plan: Plan, kind: str, resumed: bool) -> dict[str, Any]:
    """Id, name, group, job type and tags; the id is the study's and the run's, so that no two runs merge."""
    cfg = plan.cfg
    tags = [f"L{cfg.seq_len}", f"seed{cfg.seed}", *(f"{group}:{name}" for group, name in condition(cfg).items())]
    return {
        "id": f"{plan.study}-{plan.run_id}",
        "name": plan.run_id,
        "group": cfg.get("group") or plan.study,
        "job_type": cfg.get("label") or kind,
        "tags": tags,
        "stages": [stage.name for stage in plan.stages],
        "resumed": resumed,
    }


def flat_config(plan: Plan, base: RunResult | None) -> dict[str, Any]:
    """The choices' names first, then every setting under its dotted name."""
    cfg = plan.cfg
    names = {group: choice(cfg, group) for group in cfg.choices} | condition(cfg)
    settings = flat(resolved(cfg), skip=("choices", "overridden"))
    return (
        settings
        | names
        | {
            "seq_len": cfg.seq_len,
            "seed": cfg.seed,
            "run_id": plan.run_id,
            "base_run_id": base.run_id if base else None,
            "git": git_commit(),
            "dtype": plan.dtype,
        }
    )


def final_values(result: RunResult) -> dict[str, Any]:
    """The stable names under which a dashboard finds a run's result (docs/wandb.md)."""
    speed = result.time
    dense, own = speed.get("dense_step_ms"), speed.get("step_ms")
    out: dict[str, Any] = {
        "status": result.status,
        "val/loss": result.val_loss,
        "val/perplexity": result.val_perplexity,
        "val/accuracy": result.val_accuracy,
        "val/delta_loss": result.delta_loss,
        "cost/flops": sum(result.flops.values()) - result.flops.get("dense_attention", 0.0),
        "cost/indexer_params": result.params.get("indexer"),
        "cost/indexer_share": result.params.get("indexer_share"),
        "speed/step_ms": own,
        "speed/tokens_per_s": speed.get("tokens_per_s"),
        "speed/infer_ms": speed.get("infer_ms"),
        "speed/vs_dense": dense / own if dense and own else None,
        "speed/is_real": result.speed_is_real,
        "memory/peak_mb": result.memory.get("peak_mb"),
    }
    out |= {f"stability/{name}": value for name, value in result.stability.items()}
    mean = result.selection.get("mean", {})
    out |= {f"select/{name}": value for name, value in mean.items()}
    for index, layer in enumerate(result.selection.get("layers", [])):
        out |= {f"select/layer_{index:02d}/{name}": value for name, value in layer.items()}
    named = asdict(result)
    for name in ("dense_val_loss", "base_val_loss", "swap_val_loss", "swap_window_loss", "recall_slice_loss"):
        out[f"val/{name.replace('val_', '')}"] = named[name]
    return {name: value for name, value in out.items() if value is not None}


def flat(values: dict[str, Any], prefix: str = "", skip: tuple[str, ...] = ()) -> dict[str, Any]:
    """Nested dictionaries as one, keys joined by dots."""
    out: dict[str, Any] = {}
    for name, value in values.items():
        if name in skip:
            continue
        if isinstance(value, dict):
            out |= flat(value, f"{prefix}{name}.")
        else:
            out[f"{prefix}{name}"] = value
    return out
