"""Several processes of one run: only the first writes, the others wait for it."""

import torch.distributed as dist


def first_process() -> bool:
    """Whether this process is the one that writes."""
    from pytorch_lightning.utilities import rank_zero_only  # late: a plan reads the number of threads without Lightning

    return rank_zero_only.rank == 0  # type: ignore[attr-defined]


def wait_for_all() -> None:
    """Go on when every process has come here."""
    if dist.is_available() and dist.is_initialized():
        dist.barrier()
