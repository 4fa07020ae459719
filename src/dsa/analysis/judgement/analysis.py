"""The whole analysis of a study: everything that the tables, the figures and the report draw on."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from dsa.analysis.inputs.prepared import Prepared, prepare
from dsa.analysis.inputs.scale import SCALES, Scale, scale_of
from dsa.analysis.judgement.best import Best, bests
from dsa.analysis.judgement.compare import CANNOT, DENSE, Comparison, compare, silenced
from dsa.analysis.judgement.contrasts import Contrast, contrasts
from dsa.analysis.judgement.discriminate import Discrimination, discriminate, rankable
from dsa.analysis.judgement.efficiency import Efficiency, efficiencies
from dsa.analysis.judgement.guards import Guard, guards
from dsa.analysis.judgement.headroom import Headroom, headrooms
from dsa.analysis.judgement.hypothesis import Answer, Evidence, evaluate_hypothesis
from dsa.analysis.judgement.pareto import Point, fronts
from dsa.analysis.judgement.ranking import Ranked, ranked
from dsa.analysis.judgement.regret import Regret, regrets
from dsa.analysis.judgement.samples import Sampled, every_sampled
from dsa.analysis.judgement.scaling import Fit, scaling
from dsa.analysis.statistics.intervals import bootstrap_interval


@dataclass(frozen=True)
class Quality:
    """A condition's or control's mean on one scale, with its 95 % BCa interval over seeds."""

    label: str
    kind: str
    seq_len: int
    metric: str
    seeds: int
    mean: float
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class Confirmation:
    """What joint training came to, where the study is decided by the untouched backbone: of finalists on fresh seeds,
    whose numbers took no part in their choice, or of all conditions.

    Args:
        comparisons: with the baseline; to_dense: with dense attention that was trained as long.
        guards: what to know before believing it, runs that are missing among them; of cost the study tells.
    """

    metric: str
    seeds: list[int]
    qualities: list[Quality]
    comparisons: list[Comparison]
    to_dense: list[Comparison]
    guards: list[Guard]


@dataclass(frozen=True)
class Analysis:
    """What a study says.

    Args:
        answer, sentence: the verdict on the hypothesis and why.
        comparisons: with the baseline, on every scale measured; the primary metric's decide.
        deciding: of the comparisons, those on the primary metric where ranking is allowed.
        to_dense: with dense attention, likewise.
        sampled: both row by row within each seed, where the primary metric is kept of each row.
    """

    prepared: Prepared
    answer: Answer
    sentence: str
    qualities: list[Quality]
    discrimination: list[Discrimination]
    comparisons: list[Comparison]
    deciding: list[Comparison]
    to_dense: list[Comparison]
    sampled: list[Sampled]
    contrasts: list[Contrast]
    regret: list[Regret]
    headroom: list[Headroom]
    best: list[Best]
    points: list[Point]
    efficiency: list[Efficiency]
    scaling: list[Fit]
    guards: list[Guard]
    ranked: Ranked
    confirmation: Confirmation | None


def analyse_folder(folder: str | Path) -> Analysis:
    """The analysis of the study in a folder, on whatever has finished.

    Raises:
        FileNotFoundError: the folder holds no study.json.
        ValueError: its primary metric is not a quality.
    """
    return analyse(prepare(folder))


def analyse(prepared: Prepared) -> Analysis:
    """The analysis of prepared runs.

    Raises:
        ValueError: the primary metric is not a quality.
    """
    scale = scale_of(prepared.meta.metric)
    metrics = scales_measured(prepared)
    found = discriminate(prepared, scale)
    comparisons, to_dense, known = compared_where_allowed(prepared, scale, found, metrics)
    primary = [c for c in comparisons if c.metric == scale.metric]
    field = ranked(prepared, found, known)
    points = fronts(prepared, field, scale)
    allowed = [c for c in primary if c.word != CANNOT]
    planned = contrasts(prepared, field, scale)
    told_of = {(c.label, c.seq_len) for c in (*comparisons, *to_dense) if c.word != CANNOT}
    answer, sentence = evaluate_hypothesis(Evidence(prepared, scale, field, allowed, points, planned), found)
    return Analysis(
        prepared=prepared,
        answer=answer,
        sentence=sentence,
        qualities=[q for metric in metrics for q in qualities(prepared, metric)],
        discrimination=found,
        comparisons=comparisons,
        deciding=allowed,
        to_dense=to_dense,
        sampled=[one for one in every_sampled(prepared, scale) if (one.label, one.seq_len) in told_of],
        contrasts=planned,
        regret=regrets(prepared, field, scale),
        headroom=[h for metric in metrics for h in headrooms(prepared, SCALES[metric])],
        best=bests(prepared, field, scale, allowed),
        points=points,
        efficiency=efficiencies(prepared, scale.metric, rankable(found)),
        scaling=scaling(prepared, scale, found),
        guards=known,
        ranked=field,
        confirmation=None if prepared.joint is None else confirm(prepared.joint),
    )


def confirm(prepared: Prepared) -> Confirmation:
    """What runs after joint training say, on their metric and on the others that have a margin."""
    scale = scale_of(prepared.meta.metric)
    metrics = [metric for metric in scales_measured(prepared) if not metric.startswith("swap_")]
    compared = compared_where_allowed(prepared, scale, discriminate(prepared, scale), metrics)
    return Confirmation(
        metric=scale.metric,
        seeds=sorted(int(seed) for seed in prepared.runs["seed"].unique()),
        qualities=[q for metric in metrics for q in qualities(prepared, metric)],
        comparisons=compared.comparisons,
        to_dense=compared.to_dense,
        guards=[guard for guard in compared.guards if guard.name not in ("no speed claim", "dearer than dense")],
    )


class Compared(NamedTuple):
    """With the baseline and with dense attention, without a word where a guard blocks a condition."""

    comparisons: list[Comparison]
    to_dense: list[Comparison]
    guards: list[Guard]


def compared_where_allowed(
    prepared: Prepared, scale: Scale, found: list[Discrimination], metrics: list[str]
) -> Compared:
    """Every comparison on these metrics, and the guards by those on the primary one."""
    places = rankable(found)
    comparisons = [c for metric in metrics for c in compare(prepared, metric, places)]
    to_dense = [c for metric in metrics for c in compare(prepared, metric, places, to=DENSE)]
    primary, beside_dense = ([c for c in every if c.metric == scale.metric] for every in (comparisons, to_dense))
    known = guards(prepared, scale, found, primary, beside_dense)
    blocked = {(label, g.seq_len) for g in known if g.blocks and g.seq_len is not None for label in g.labels}
    comparisons, to_dense = ([silenced(c, blocked) for c in every] for every in (comparisons, to_dense))
    return Compared(comparisons, to_dense, known)


def scales_measured(prepared: Prepared) -> list[str]:
    """The primary metric, the two losses side by side, and the accuracies that have a margin; those measured.

    Where nothing was trained jointly, what a user gets is the untouched backbone, and its values stand once.
    """
    wanted = [prepared.meta.metric, "val_loss", "swap_val_loss", *prepared.meta.margin]
    conditions = prepared.runs[prepared.runs["kind"] == "condition"]
    return [
        metric
        for metric in dict.fromkeys(wanted)
        if metric in SCALES
        and metric in conditions
        and conditions[metric].notna().any()
        and (metric == prepared.meta.metric or not repeats(conditions, metric))
    ]


def repeats(conditions: pd.DataFrame, metric: str) -> bool:
    """Whether a metric after joint training is that of the untouched backbone in every run: there was none."""
    swapped = f"swap_{metric}"
    return swapped in conditions and conditions[metric].equals(conditions[swapped])


def qualities(prepared: Prepared, metric: str) -> list[Quality]:
    """Every condition and control at every length."""
    out = []
    for seq_len in prepared.lengths:
        for label in prepared.labels(seq_len):
            kind = prepared.meta.control(label) or "condition"
            values = prepared.quality(label, seq_len, SCALES[metric]).to_numpy()
            if len(values):
                mean, interval = float(np.mean(values)), bootstrap_interval(values)
                out.append(Quality(label, kind, seq_len, metric, len(values), mean, interval))
    return out
