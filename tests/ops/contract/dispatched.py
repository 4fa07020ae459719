"""A backend that refuses some calls, as whoever names it meets it: what it does not cover goes to the next."""

import torch

from dsa import ops
from dsa.ops import Call, faults


def moved(x, device):
    """A tensor, or all tensors in a tuple or list, on a device; anything else as it is."""
    if isinstance(x, torch.Tensor):
        return x.to(device)
    if isinstance(x, tuple | list):
        parts = [moved(part, device) for part in x]
        return type(x)(*parts) if hasattr(x, "_fields") else type(x)(parts)
    return x


class Dispatched:
    """The ops through dispatch. Tensors go to a device, and answers come back from there.

    Args:
        backend: the one that is named.
        device: where it computes.
    """

    def __init__(self, backend, device):
        self.backend, self.device, self.name = backend, device, backend.name

    def covers(self, call: Call):
        return self.backend.covers(moved(call, self.device))

    def select(self, scorer, zones, limit, trim=None, offset=0, first=None, slots=None):
        rule = trim and (lambda rows: moved(trim(moved(rows, "cpu")), self.device))
        return self.answer("select", scorer, zones, limit, rule, offset, first, slots=slots)

    def answer(self, op, *given, **options):
        given, options = moved(given, self.device), {name: moved(x, self.device) for name, x in options.items()}
        answer = moved(getattr(ops, op)(*given, **options, backend=self.name), "cpu")
        faults.settle(wait=True)
        return answer

    def __getattr__(self, op):
        return lambda *given, **options: self.answer(op, *given, **options)
