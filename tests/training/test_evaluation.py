"""Loss, perplexity and accuracy against torchmetrics' own, over the positions that ask for something."""

import pytest
import torch
from torch import nn
from torchmetrics.classification import MulticlassAccuracy
from torchmetrics.text import Perplexity

from dsa.data import IGNORE, Batch
from dsa.judging.evaluation import EvalMetrics


def batch(rows, asked):
    """Rows of which these positions ask for something, and logits that are often right."""
    tokens = torch.randint(10, (rows, 12))
    targets = torch.full_like(tokens, IGNORE)
    targets[:, asked] = tokens[:, asked]
    logits = torch.randn(rows, 12, 10) + 2 * nn.functional.one_hot(tokens, 10)
    return logits, Batch(tokens, targets, slice=(targets != IGNORE) & (tokens < 5))


def test_metrics_are_those_of_torchmetrics():
    torch.manual_seed(0)
    metrics, perplexity = EvalMetrics(), Perplexity(ignore_index=IGNORE)
    accuracy = MulticlassAccuracy(10, average="micro", ignore_index=IGNORE)
    losses, slices = [], []
    for rows, asked in ((3, [2, 5, 11]), (2, [0, 1, 2, 7]), (4, [])):  # the last asks nothing
        logits, rows = batch(rows, asked)
        metrics.update(logits, rows)
        if asked:
            perplexity.update(logits, rows.targets)
            accuracy.update(logits.flatten(0, 1), rows.targets.flatten())
        each = nn.functional.cross_entropy(logits.mT, rows.targets, ignore_index=IGNORE, reduction="none")
        losses.append(each[rows.targets != IGNORE])
        slices.append(each[rows.slice])
    assert metrics.compute() == pytest.approx(
        {
            "loss": torch.cat(losses).mean().item(),
            "perplexity": perplexity.compute().item(),
            "accuracy": accuracy.compute().item(),
            "recall_slice_loss": torch.cat(slices).mean().item(),
        },
        rel=1e-6,
    )
    assert 0 < metrics.compute()["accuracy"] < 1


def test_a_loss_that_is_no_number_is_told():
    logits, rows = batch(2, [3])
    logits[1, 3] = float("nan")
    with pytest.raises(FloatingPointError, match="validation loss is not a number"):
        EvalMetrics().update(logits, rows)


def test_the_rows_of_a_text_are_told_one_by_one_in_their_order():
    """Of two processes the second is done first; rows that ask for little of what they hold are not told apart."""
    torch.manual_seed(0)
    metrics = EvalMetrics()
    parts = [batch(rows, list(range(12))) for rows in (3, 2)]
    for (logits, rows), first in zip(reversed(parts), (3, 0), strict=True):
        metrics.update(logits, rows, first)
    each = [nn.functional.cross_entropy(logits.mT, rows.targets, reduction="none").mean(1) for logits, rows in parts]
    assert metrics.samples() == {"loss": pytest.approx(torch.cat(each).tolist(), abs=1e-6)}
    metrics.reset()
    metrics.update(*batch(3, [2, 5]))
    assert metrics.samples() == {}
