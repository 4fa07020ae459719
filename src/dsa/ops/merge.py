"""Selections that were made apart as one."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from dsa.ops.contracts import Selection


def equally_wide(parts: Sequence[Selection]) -> list[Selection]:
    """The same with as many slots each, of which those behind are empty."""
    slots = max(part.positions.shape[-1] for part in parts)
    return [
        Selection(F.pad(part.positions.int(), (0, slots - part.positions.shape[-1]), value=-1), part.counts.int())
        for part in parts
    ]


def side_by_side(parts: Sequence[Selection]) -> Selection:
    """Selections of single groups as that of all."""
    wide = equally_wide(parts)
    return Selection(torch.cat([part.positions for part in wide], 1), torch.cat([part.counts for part in wide], 1))
