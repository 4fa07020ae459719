"""What the files of a pretrained model say: its configuration, its weights, and how many these are."""

import logging
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from dsa.pretrained.files import files_of
from dsa.pretrained.libraries import quiet, transformers

logger = logging.getLogger(__name__)

EXPERTS = {"experts_implementation": "batched_mm"}
"""Grouped products of experts exist on processors in bfloat16 alone."""


def config_of(path: str) -> Any:
    """The configuration of a pretrained model, as transformers reads it.

    Raises:
        ValueError: it cannot.
    """
    folder = str(files_of(path))
    try:
        return transformers().AutoConfig.from_pretrained(folder)
    except Exception as error:  # as many kinds as there are ways to be wrong
        raise unreadable(path, error) from error


@lru_cache(maxsize=8)
def weights_of(path: str, told: str) -> tuple[int, int]:
    """How many weights a model has, and how many of them the experts of a layer that one token goes through.

    Args:
        told: its configuration as text: another one is counted anew.

    Raises:
        ValueError: transformers knows no causal language model of this kind.
    """
    config = config_of(path)
    try:
        with torch.device("meta"):
            model = transformers().AutoModelForCausalLM.from_config(config, **EXPERTS)
    except Exception as error:  # as many kinds as there are ways to be wrong
        raise unreadable(path, error) from error
    chosen = getattr(config.get_text_config(), "num_experts_per_tok", None) or 0
    experts = [module for module in model.modules() if isinstance(getattr(module, "num_experts", None), int)]
    each = [
        sum(weight.numel() for weight in module.parameters(recurse=False) if weight.dim() == 3) // module.num_experts
        for module in experts
    ]
    return sum(weight.numel() for weight in model.parameters()), chosen * max(each, default=0)


def loaded(path: str) -> nn.Module:
    """A model with its weights in float32; those of its files that it has no place for are told.

    Raises:
        ValueError: its files are damaged, lack weights, or hold some of another shape or that are not finite.
    """
    library, folder = transformers(), str(files_of(path))
    try:
        with quiet(library):
            model, told = library.AutoModelForCausalLM.from_pretrained(
                folder, dtype=torch.float32, output_loading_info=True, ignore_mismatched_sizes=True, **EXPERTS
            )
    except MemoryError:
        raise
    except Exception as error:  # as many kinds as there are ways to be wrong
        if isinstance(error, RuntimeError) and "memory" in str(error):
            raise
        raise unreadable(path, error) from error
    if misshapen := sorted(told["mismatched_keys"]):
        name, there, wanted = misshapen[0]
        raise ValueError(
            f"model.path = {path}: {len(misshapen)} of its weights have other shapes than its config.json says "
            f"({name}: {tuple(there)}, not {tuple(wanted)})."
        )
    if missing := sorted(told["missing_keys"]):
        raise ValueError(
            f"model.path = {path}: its files lack {len(missing)} of the model's weights ({missing[0]}, ...), which "
            "would be drawn at random. They may be half downloaded, or of a model without a head for tokens."
        )
    if surplus := sorted(told["unexpected_keys"]):
        warn_of_surplus(path, len(surplus), surplus[0])
    for name, weight in model.named_parameters():
        if not weight.isfinite().all():
            raise ValueError(
                f"model.path = {path}: its weight {name} holds values that are no finite numbers. The file may be "
                "damaged, or a training that diverged may have written it."
            )
    whole: nn.Module = model
    return whole


@lru_cache  # a run reads a model more than once
def warn_of_surplus(path: str, count: int, first: str) -> None:
    """Tell once of weights that are left aside."""
    logger.warning(
        "model.path = %s: its files hold %d weights that the model of its config.json has no place for (%s, ...). "
        "It is read without them: what is measured may be of another model than theirs.",
        path, count, first,
    )  # fmt: skip


def unreadable(path: str, error: Exception) -> ValueError:
    """What is said of files that transformers cannot read."""
    if isinstance(error, ImportError):
        return ValueError(f"model.path = {path}: to read it a package is needed that is not installed ({error}).")
    first = next(iter(str(error).strip().splitlines()), "no reason given").rstrip(".")
    return ValueError(
        f"model.path = {path}: its files cannot be read ({type(error).__name__}: {first}). They may be damaged or half "
        "downloaded, or of an architecture that transformers does not know."
    )
