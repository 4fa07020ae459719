"""Where a run computes, and in which number format."""

from dataclasses import dataclass
from typing import Any

import torch

from dsa.checks import flag, one_of, positive, text


@dataclass(frozen=True)
class Devices:
    """Where training runs; see conf/trainer."""

    accelerator: str
    devices: Any
    strategy: str
    num_nodes: int
    shard: bool
    accumulate: int

    @property
    def on_gpu(self) -> bool:
        """Whether this machine would train on a GPU."""
        return gpu_taken(self.accelerator)

    @property
    def several(self) -> bool:
        """Whether more than one process is asked for, where that is said in numbers and not left to the machine."""
        count = len(self.devices) if isinstance(self.devices, list) else self.devices
        return self.num_nodes > 1 or (isinstance(count, int) and count > 1)


def trainer_of(node: dict[str, Any]) -> Devices:
    """Where a configuration asks to train.

    Raises:
        ValueError: a setting is impossible.
    """
    return Devices(
        accelerator=text(node["accelerator"], "trainer.accelerator"),
        devices=devices_of(node["devices"]),
        strategy=text(node["strategy"], "trainer.strategy"),
        num_nodes=positive(node["num_nodes"], "trainer.num_nodes"),
        shard=flag(node["shard"], "trainer.shard"),
        accumulate=positive(node["accumulate"], "trainer.accumulate"),
    )


def devices_of(value: Any) -> Any:
    """How many devices, or which.

    Raises:
        ValueError: neither.
    """
    numbers = value if isinstance(value, list) else [value]
    least = 0 if isinstance(value, list) else 1
    whole = [isinstance(one, int) and not isinstance(one, bool) and one >= least for one in numbers]
    if value in ("auto", -1) or (whole and all(whole)):
        return value
    raise ValueError(
        f"trainer.devices = {value}: give a whole number from 1, -1 or auto for all, or a list of devices."
    )


def gpu_taken(accelerator: str) -> bool:
    """Whether training takes a GPU of this machine."""
    return torch.cuda.is_available() and accelerator in ("auto", "gpu", "cuda")


def compute_dtype(dtype: Any, accelerator: str) -> str:
    """fp32 or bf16: as asked, or bf16 where the processor or accelerator is fast at it.

    Raises:
        ValueError: dtype is none of auto, fp32, bf16.
    """
    one_of(dtype, ("auto", "fp32", "bf16"), "dtype")
    if dtype != "auto":
        return str(dtype)
    if gpu_taken(accelerator):
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16" if fast else "fp32"
