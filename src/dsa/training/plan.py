"""Which run a configuration means: its name, its hash, and the dense runs it stands on."""

import logging
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, open_dict

from dsa.build import needs_indexer
from dsa.checks import folder_name
from dsa.config import GROUPS, choice, digest, resolved
from dsa.data import DataModule
from dsa.training.provenance import code_fingerprint
from dsa.training.stages import scaled, stages_of

logger = logging.getLogger(__name__)
SHARED = "dense"  # the study folder of dense bases and dense controls, shared by all conditions


def compute_dtype(cfg: DictConfig) -> str:
    """fp32 or bf16: as asked, or bf16 where the processor or accelerator is fast at it.

    Raises:
        ValueError: dtype is none of auto, fp32, bf16.
    """
    if cfg.dtype not in ("auto", "fp32", "bf16"):
        raise ValueError(f"dtype = {cfg.dtype}: give auto, fp32 or bf16.")
    if cfg.dtype != "auto":
        return cfg.dtype
    if torch.cuda.is_available() and cfg.trainer.accelerator in ("auto", "gpu", "cuda"):
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16" if fast else "fp32"


def scientific(cfg: DictConfig, data: DataModule | None, dtype: str) -> dict[str, Any]:
    """All that can change a run's numbers, and nothing else: not names, loggers, devices or folders.

    Parts that a run does not use are left out, so that dense runs are the same run under every condition.

    Args:
        data: None if it could not be read; then the configuration stands for it.
    """
    plain = resolved(cfg)
    stages = [vars(stage) for stage in stages_of(cfg)]
    used = {"pattern", "selector"} if sparse_run(cfg) else set()
    if needs_indexer(cfg):
        used |= {"indexer", "precision", "objective"}
    settings = plain["data"]
    content = settings if data is None else data.fingerprint
    rows = ("_target_", "seed", "seq_len", "batch_size", "eval_batch_size", "eval_batches")
    return {
        **{group: plain[group] for group in sorted(used)},
        "model": {name: value for name, value in plain["model"].items() if name != "checkpointing"},
        "optimizer": plain["optimizer"],
        "recipe": {name: plain["recipe"][name] for name in ("lr_warmup", "lr_final", "clip")},
        "stages": stages,
        "data": [content, *(settings[name] for name in rows)],
        "seq_len": plain["seq_len"],
        "seed": plain["seed"],
        "dtype": dtype,
    }


def run_id(cfg: DictConfig, config_hash: str) -> str:
    """Readable name that ends in the hash; options that are the default go unsaid."""
    names = condition(cfg)
    order = GROUPS if needs_indexer(cfg) else ("selector", "pattern") if sparse_run(cfg) else ("selector",)
    unsaid = {"selector": "topk", "precision": "fp32", "model": "tiny", "data": "stdlib", "recipe": "continue"}
    said = [names[group] for group in order if unsaid.get(group) != names[group]]
    for group in ("model", "data", "recipe"):
        name = choice(cfg, group)
        if unsaid[group] != name and not (group == "recipe" and name == "dense"):
            said.append(name)
    return "-".join([*said, f"L{cfg.seq_len}", f"s{cfg.seed}", config_hash]).replace("/", "_")


def condition(cfg: DictConfig) -> dict[str, str]:
    """The option of each of the four groups; none where a run uses none, and dense where nothing is selected."""
    if not sparse_run(cfg):
        return {"indexer": "none", "pattern": "causal", "selector": "dense", "precision": "none"}
    names = {group: choice(cfg, group) for group in GROUPS}
    return names if needs_indexer(cfg) else names | {"indexer": "none", "precision": "none"}


def sparse_run(cfg: DictConfig) -> bool:
    """Whether the run selects keys at all."""
    return cfg.recipe.warmup.steps > 0 or cfg.recipe.sparse.steps > 0


def base_of(cfg: DictConfig) -> DictConfig | None:
    """The dense run that a run starts from; None if it starts from scratch or is one itself."""
    if cfg.recipe.dense.steps == 0 or not sparse_run(cfg):
        return None
    return with_stages(cfg, ("dense",), "dense")


def control_of(cfg: DictConfig) -> DictConfig | None:
    """The same training with dense attention; None if the run has no sparse stage or is that control."""
    if cfg.recipe.sparse.steps == 0:
        return None
    return with_stages(cfg, ("dense", "sparse"), cfg.choices.get("recipe", "custom"))


def with_stages(cfg: DictConfig, names: tuple[str, ...], recipe: str) -> DictConfig:
    """A copy with dense attention and only these stages, each as long as before, in the folder of shared runs."""
    out = deepcopy(cfg)
    counts = scaled({name: cfg.recipe[name].steps for name in ("dense", "warmup", "sparse")}, cfg.steps)
    with open_dict(out):
        for name, count in counts.items():
            out.recipe[name].steps = count if name in names else 0
        out.steps, out.study, out.rerun = None, SHARED, False
        out.pattern = {"_target_": "dsa.patterns.Causal", "budget": 64}
        out.selector = {"_target_": "dsa.selectors.Dense"}
        out.precision = {"_target_": "dsa.precision.Exact"}
        out.choices.update(recipe=recipe, pattern="causal", selector="dense", precision="fp32")
        out.overridden = [group for group in cfg.overridden if group in ("model", "data", "optimizer")]
    return out


class Plan:
    """One run: its data, stages, hash, name and folder.

    Args:
        data: None if it could not be read.

    Raises:
        ValueError: a setting is impossible; name and study are names of folders in output_dir.
    """

    def __init__(self, cfg: DictConfig, data: DataModule | None) -> None:
        self.cfg, self.data = cfg, data
        self.dtype = compute_dtype(cfg)
        self.stages = stages_of(cfg)
        self.config_hash = digest(scientific(cfg, data, self.dtype))
        for name in ("name", "study"):
            folder_name(cfg[name], name)
        self.study = str(cfg.study) if sparse_run(cfg) else SHARED
        study = Path(cfg.output_dir) / self.study
        self.run_id = run_id(cfg, self.config_hash)
        if not (study / self.run_id).exists():  # another spelling of the same run may have made it
            self.run_id = min((path.name for path in study.glob(f"*-{self.config_hash}")), default=self.run_id)
        self.folder = study / self.run_id
        self.code = code_fingerprint(tuple(cfg.allow_targets))
