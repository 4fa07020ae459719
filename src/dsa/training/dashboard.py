"""What a dashboard is told about a run: who it is, its configuration flat, its final values."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dsa.artifacts.results import RunResult
from dsa.judging.provenance import git_commit
from dsa.judging.world import first_process
from dsa.spec import Spec
from dsa.training.loggers import RunLogger

SHARED = "dense"
"""Group of what runs share, on a dashboard."""


@dataclass
class Dashboard:
    """One run on a dashboard, started only when there is something to train.

    Args:
        make: the logger that the spec names; None for what is logged elsewhere.
        name, group, job_type, tags: as a dashboard shows them.
        silent: it hears of nothing.
        place: where the logger keeps its files; None = with what is trained.
    """

    spec: Spec
    name: str
    group: str
    job_type: str
    tags: tuple[str, ...] = ()
    silent: bool = False
    place: Path | None = None

    @contextmanager
    def started(self, folder: Path, stages: list[str], resumed: bool) -> Iterator[RunLogger | None]:
        """The logger while a stage trains; it ends with it, however that goes."""
        if self.silent or not first_process():
            yield None
            return
        logger: RunLogger = self.spec.logger.make()
        logger.start(self.place or folder, self.identity(stages, resumed), flat_config(self.spec, {}))
        try:
            yield logger
        except BaseException:
            logger.finish(failed=True)
            raise
        logger.finish(failed=False)

    def identity(self, stages: list[str], resumed: bool) -> dict[str, Any]:
        """Id, name, group, job type and tags; the id is the group's and the name's, so that no two runs merge."""
        return {
            "id": f"{self.group}-{self.name}",
            "name": self.name,
            "group": self.group,
            "job_type": self.job_type,
            "tags": [f"L{self.spec.seq_len}", f"seed{self.spec.seed}", f"data:{self.spec.data.option}", *self.tags],
            "stages": stages,
            "resumed": resumed,
        }


def flat_config(spec: Spec, own: dict[str, Any]) -> dict[str, Any]:
    """The choices' names first, then every setting under its dotted name.

    Args:
        own: what the run adds: its id, and those of what it stands on.
    """
    settings = flat(spec.content, skip=("choices", "overridden"))
    named = {"seq_len": spec.seq_len, "seed": spec.seed, "git": git_commit(), "dtype": spec.dtype}
    return settings | spec.options | spec.condition | named | own


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
        for group, shares in enumerate(layer.get("chosen") or []):
            out |= {f"select/layer_{index:02d}/group_{group}/{name}": share for name, share in shares.items()}
        for name, share in (layer.get("picked") or {}).items():
            out[f"select/layer_{index:02d}/picked/{name}"] = share
        one = {name: value for name, value in layer.items() if name not in ("layer", "chosen", "picked")}
        out |= {f"select/layer_{index:02d}/{name}": value for name, value in one.items()}
    named = asdict(result)
    for measure in ("loss", "exact_match"):
        for name in ("dense_val", "base_val", "swap_val", "swap_window", "swap_sink_window"):
            out[f"val/{name.replace('_val', '')}_{measure}"] = named[f"{name}_{measure}"]
    out |= {"val/recall_slice_loss": result.recall_slice_loss, "val/exact_match": result.val_exact_match}
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
