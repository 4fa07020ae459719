"""Conditions compared row by row within each seed, where the loss of each row is kept: of texts, and of rows that have
an answer of their own (data=retrieval)."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from dsa.analysis.inputs.prepared import Prepared
from dsa.analysis.inputs.scale import Scale, scale_of
from dsa.analysis.judgement.compare import DENSE
from dsa.analysis.statistics.by_sample import BySample, by_sample


@dataclass(frozen=True)
class Sampled:
    """A condition less what it is compared with, on the same samples.

    Args:
        reference: another condition, or dense attention beside the condition's own runs.
    """

    label: str
    reference: str
    seq_len: int
    metric: str
    found: BySample


def sampled(prepared: Prepared, metric: str) -> list[Sampled]:
    """Every condition at every length, against its baseline and against dense attention; those without samples are left
    out.

    Args:
        metric: a loss or an exact match.

    Raises:
        ValueError: it is none that samples have, no run has samples, or runs draw their indexers several times a seed.
    """
    scale = scale_of(metric)
    if scale.metric.endswith("accuracy"):
        raise ValueError(f"metric = {metric}: of each row the loss and the exact match are kept; give one of these.")
    if several_draws(prepared):
        raise ValueError("indexer_seed: this study draws indexers several times a seed; samples are told of one draw.")
    out = every_sampled(prepared, scale)
    if not out:
        raise ValueError(f"no run here keeps {metric} of each row: those on texts and on data=retrieval do.")
    return out


def every_sampled(prepared: Prepared, scale: Scale) -> list[Sampled]:
    """The same; nothing where nothing is kept of each row, or indexers are drawn several times a seed."""
    if several_draws(prepared):
        return []
    return [one for seq_len in prepared.lengths for one in at_length(prepared, seq_len, scale)]


def several_draws(prepared: Prepared) -> bool:
    """Whether a condition has several runs of one seed."""
    draws = [(run["label"], run["seq_len"], run["seed"], run.get("judge")) for run in prepared.meta.runs]
    return len(set(draws)) < len(draws)


def at_length(prepared: Prepared, seq_len: int, scale: Scale) -> Iterator[Sampled]:
    """The comparisons at one length."""
    for label in prepared.conditions(seq_len):
        own, other = of_rows(prepared, label, seq_len, scale.metric), prepared.meta.reference(label)
        against: dict[str, pd.Series] = {DENSE: of_rows(prepared, label, seq_len, scale.dense)}
        if other != label and of_one_text(prepared, label, other, seq_len):
            against = {other: of_rows(prepared, other, seq_len, scale.metric)} | against
        for reference, theirs in against.items():
            seeds = [seed for seed in own.index if seed in theirs.index and len(own[seed]) == len(theirs[seed])]
            if seeds:
                d = np.stack([np.asarray(own[seed], float) - np.asarray(theirs[seed], float) for seed in seeds])
                yield Sampled(label, reference, seq_len, scale.metric, by_sample(d))


def of_one_text(prepared: Prepared, label: str, other: str, seq_len: int) -> bool:
    """Whether two conditions read the same text, as far as is known: rows of others are no pairs."""
    texts = [{*prepared.rows(one, seq_len).get("corpus", pd.Series(dtype=str))} for one in (label, other)]
    return texts[0] == texts[1] or not all(texts)


def of_rows(prepared: Prepared, label: str, seq_len: int, name: str) -> pd.Series:
    """What was measured of each row, by seed."""
    runs = prepared.rows(label, seq_len)
    column = f"samples.{name}"
    return runs[column].dropna() if column in runs else pd.Series(dtype=object)
