"""What tests of published indexers share: what their code ranks, and which units of several tokens are kept."""

import torch
from torch.overrides import TorchFunctionMode

from dsa import ops
from dsa.ops import Zone

EVERYTHING = (Zone(first=None, last=0),)


class Ranked(TorchFunctionMode):
    """Keeps what is ranked, in order: their indexers give away no scores."""

    def __init__(self):
        super().__init__()
        self.scores = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch.Tensor.topk:
            self.scores.append(args[0])
        return func(*args, **kwargs or {})


def tied(scores, k):
    """Units that share the k-th score where not all of them can be kept; none where the k best are clear."""
    if not 0 < k < len(scores):
        return set()
    last = scores.topk(k).values[-1]
    equal = (scores == last).nonzero().flatten().tolist()
    return set(equal) if (scores >= last).sum() > k else set()


def assert_same_blocks(features, expected, wanted, blocks, forced, pads=None):
    """Our scores are theirs, and so are the tokens that are kept.

    Args:
        features: ours.
        expected: their scores of whole blocks [row, group, query, block], in our scale.
        wanted: the tokens that theirs keeps [row, group, query, key].
        blocks: how many of the blocks that compete are kept.
        forced: how many tokens each query keeps anyway [query], or [row, query].
        pads: tokens before each row's first [row], whole blocks of them.
    """
    rows, groups, length, units = expected.shape
    pads = torch.zeros(rows, dtype=torch.long) if pads is None else pads
    forced = forced.expand(rows, length)
    first = torch.arange(1, length + 1) - forced  # the key from which on all are kept
    begin, end = pads // features.unit, first // features.unit
    unit = torch.arange(units)
    competing = ((unit >= begin[:, None, None]) & (unit < end[..., None]))[:, None]
    scores = features.scores(slice(0, length), slice(0, units))
    torch.testing.assert_close(
        scores.masked_fill(~competing, 0), expected.masked_fill(~competing, 0), rtol=1e-5, atol=1e-4
    )
    limit = (blocks * features.unit + forced)[:, None].expand(-1, groups, -1)
    positions = ops.select(features, EVERYTHING, limit, first=pads, backend="reference").positions
    decided = 0
    for row, group, t in torch.cartesian_prod(*map(torch.arange, (rows, groups, length))).tolist():
        kept = {p for p in positions[row, group, t].tolist() if p >= 0}
        theirs = set(wanted[row, group, t].nonzero().flatten().tolist())
        at, number = int(begin[row]), int(competing[row, 0, t].sum())
        # of equal ones theirs takes any, ours the first
        equal = {at + one for one in tied(expected[row, group, t, at : at + number], blocks)}
        either = {unit * features.unit + n for unit in equal for n in range(features.unit)}
        decided += not equal
        assert kept - either == theirs - either, (row, group, t)
        assert len(kept) == len(theirs) == min(number, blocks) * features.unit + int(forced[row, t]), (row, group, t)
    assert decided > 0.8 * rows * groups * length
