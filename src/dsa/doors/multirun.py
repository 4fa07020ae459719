"""The end of `python train.py -m`: its runs side by side."""

from typing import Any

from hydra.core.utils import JobReturn
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dsa.analysis.inputs.runs import OneRun
from dsa.analysis.output.cells import wide_console
from dsa.analysis.output.runs import show_runs
from dsa.config import marked


def show(jobs: list[JobReturn]) -> None:
    """The table of what jobs of train.py returned."""
    show_runs([run_of(job) for job in jobs], wide_console())


def run_of(job: JobReturn) -> OneRun:
    """A job as a run: its result, or why there is none."""
    settings = settings_of(job)
    value = job._return_value  # return_value would raise the job's error
    if isinstance(value, BaseException):
        return OneRun(settings, None, str(value))
    return OneRun(settings, value)


def settings_of(job: JobReturn) -> dict[str, Any]:
    """A job's configuration, as written where it cannot be resolved."""
    assert job.cfg is not None and job.hydra_cfg is not None
    try:
        plain: Any = OmegaConf.to_container(job.cfg, resolve=True)
    except OmegaConfBaseException:
        plain = OmegaConf.to_container(job.cfg, resolve=False)
    return plain | marked(job.hydra_cfg.hydra.runtime.choices, list(job.overrides or []))
