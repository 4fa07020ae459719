"""Faults that kernels find. A host that asks a GPU at once waits for all that it was told to do, so what they found is
sent to the host's memory, and one of the next ops that finds it there reports it. On the CPU that is the same op."""

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor


class Finding(NamedTuple):
    """Whole numbers on their way to the host, when they are there, and who raises if they tell of a fault."""

    numbers: Int[Tensor, "*number"]
    sent: torch.cuda.Event | None
    report: Callable[..., None]


findings: deque[Finding] = deque()


def watch(numbers: Int[Tensor, "*number"], report: Callable[..., None]) -> None:
    """Report numbers on a device, and whatever was found before, as soon as they are on the host.

    Args:
        report: is given the numbers, and raises if they tell of a fault.
    """
    sent = None
    if numbers.is_cuda:
        with torch.cuda.device(numbers.device):
            sent = torch.cuda.Event()
            numbers = torch.empty_like(numbers, device="cpu", pin_memory=True).copy_(numbers, non_blocking=True)
            sent.record()
    findings.append(Finding(numbers, sent, report))
    settle()


def arrived(finding: Finding) -> bool:
    """Whether its numbers are on the host."""
    return finding.sent is None or finding.sent.query()


def settle(wait: bool = False) -> None:
    """Report what has been found so far.

    Args:
        wait: for what is still on its way.
    """
    while findings and (wait or arrived(findings[0])):
        finding = findings.popleft()
        if finding.sent is not None:
            finding.sent.synchronize()
        found = finding.numbers.tolist()
        finding.report(*(found if isinstance(found, list) else [found]))
