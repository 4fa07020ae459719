"""Triton kernel of the divergence between an attention and index scores, both told row by row.

Of each pair in scope two numbers are in memory: the mass, which is the attention summed over heads and tokens of a
unit, and the index score. Whether the pairs are all earlier units or selected ones is no concern of this kernel.
"""

from typing import no_type_check

import triton
import triton.language as tl


@triton.jit
@no_type_check
def divergence(
    masses, scores, stops, losses, valid, slopes,
    m_batch, m_group, m_row, s_batch, s_group, s_row, groups, rows, width, time, lines,
    SLOPES: tl.constexpr, ROWS: tl.constexpr, SPAN: tl.constexpr,
):  # fmt: skip
    """Of each row [batch group row] KL(p || softmax(I)) in nats and whether it has mass; the first `stop` pairs are in
    scope. If SLOPES also the gradient by the scores, softmax(I) - p [batch group row, width]: 0 out of scope."""
    at = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    line, row, mask = at // rows, at % rows, at < lines
    batch, group = line // groups, line % groups
    stop = tl.load(stops + batch * s_batch + group * s_group + row * s_row, mask=mask, other=0)
    own_masses = masses + batch * m_batch + group * m_group + row * m_row
    own_scores = scores + at * width
    total_mass, crossed = tl.zeros([ROWS], tl.float32), tl.zeros([ROWS], tl.float32)
    peak, total = tl.full([ROWS], float("-inf"), tl.float32), tl.zeros([ROWS], tl.float32)
    for begin in range(0, tl.max(stop, 0), SPAN):
        pair = begin + tl.arange(0, SPAN)[None, :]
        inside = pair < stop[:, None]
        mass = tl.load(own_masses[:, None] + pair, mask=inside, other=0.0)
        score = tl.load(own_scores[:, None] + pair, mask=inside, other=float("-inf"))
        total_mass += tl.sum(mass, 1)
        some = tl.where(mass == 0.0, 1.0, mass)
        crossed += tl.sum(tl.where(mass == 0.0, 0.0, mass * (tl.log(some) - score)), 1)
        higher = tl.maximum(peak, tl.max(score, 1))
        base = tl.where(higher == float("-inf"), 0.0, higher)
        total = total * tl.exp(peak - base) + tl.sum(tl.exp(score - base[:, None]), 1)
        peak = higher
    logsumexp = peak + tl.log(tl.where(total == 0.0, 1.0, total))
    total_mass = tl.where(mask, total_mass, 0.0)  # Triton 3.4 to 3.8 refuse a loop's sum that is read more than once
    counts = total_mass != 0.0  # what is no number stays so in the loss
    divisor = tl.where(counts, total_mass, 1.0)
    loss = crossed / divisor - tl.log(divisor) + logsumexp
    told = line * time + row
    tl.store(losses + told, tl.where(counts, loss, 0.0), mask=mask)
    tl.store(valid + told, (total_mass > 0.0).to(tl.float32), mask=mask)
    if SLOPES:
        for begin in range(0, width, SPAN):
            pair = begin + tl.arange(0, SPAN)[None, :]
            inside = (pair < stop[:, None]) & counts[:, None]
            mass = tl.load(own_masses[:, None] + pair, mask=inside, other=0.0)
            score = tl.load(own_scores[:, None] + pair, mask=inside, other=0.0)
            slope = tl.exp(score - logsumexp[:, None]) - mass / divisor[:, None]
            place = slopes + at[:, None] * width + pair
            tl.store(place, tl.where(inside, slope, 0.0), mask=mask[:, None] & (pair < width))
