"""How a claim of the original experiment is evaluated by what was measured here.

A claim of a gain of at least g is supported where the whole 95 % interval lies at g or above, not supported where all
of it lies below, else inconclusive; so is a measurement without an interval, or one taken beside other work.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from dsa.analysis.inputs.cost import COSTS, cost_of
from dsa.analysis.inputs.scale import SCALES
from dsa.analysis.judgement.compare import CANNOT
from dsa.analysis.judgement.discriminate import rankable
from dsa.analysis.output.report.words import listed
from dsa.analysis.statistics.intervals import bootstrap_interval
from dsa.analysis.statistics.paired import paired
from dsa.analysis.statistics.values import Array
from paper.evidence import Studies, label_of, places
from paper.markdown import percent, signed
from paper.source import Study

Verdict = Literal["supported", "not supported", "inconclusive", "not tested"]
Interval = tuple[float, float] | None


@dataclass(frozen=True)
class Evaluated:
    """One answer to a claim: where it was looked for, what was found with its interval, the verdict and why.

    Args:
        barred: what was measured may not be judged, whatever it is.
    """

    where: str
    value: str
    verdict: Verdict
    why: str
    barred: bool = False


Evaluation = Callable[[Studies], list[Evaluated]]
LAST_DIGIT = 0.001  # a share told to a tenth of a percent, rounded or cut


def not_tested(why: str) -> list[Evaluated]:
    return [Evaluated("–", "–", "not tested", why)]


def at_least(least: float, interval: Interval) -> Verdict:
    """The verdict on a gain of at least so much."""
    if interval is None:
        return "inconclusive"
    return "supported" if interval[0] >= least else "not supported" if interval[1] < least else "inconclusive"


def fewer_parameters(indexer: str, reference: str, share: float) -> Evaluation:
    """So many fewer indexer parameters, to the claim's last digit."""

    def evaluate(studies: Studies) -> list[Evaluated]:
        out = {}
        for study, mine, theirs, length in places(studies, indexer, reference):
            costs = (cost_of(study.analysis.prepared, one, length, COSTS["indexer_params"]) for one in (mine, theirs))
            few, many = (float(cost.mean()) for cost in costs)
            verdict: Verdict = "supported" if abs(1 - few / many - share) < LAST_DIGIT else "not supported"
            value = f"{percent(1 - few / many, digits=2)} ({many:,.0f} to {few:,.0f})"
            out[value] = Evaluated("every study", value, verdict, "counted, all layers")
        return list(out.values()) or not_tested(f"no study holds finished runs of {indexer} and {reference}.")

    return evaluate


def less_memory(indexer: str, reference: str, least: float) -> Evaluation:
    """Less memory in training: tensors held at once in one step over one row."""

    def evaluate(studies: Studies) -> list[Evaluated]:
        out = []
        for study, mine, theirs, length in places(studies, indexer, reference):
            if study.analysis.answer == CANNOT:
                continue
            costs = [cost_of(study.analysis.prepared, one, length, COSTS["memory_mb"]) for one in (mine, theirs)]
            saved = (1 - costs[0] / costs[1]).dropna().to_numpy()
            if len(saved):
                interval = bootstrap_interval(saved)
                value = percent(float(saved.mean()), interval, sign=True)
                value += f" ({costs[1].mean():.3g} to {costs[0].mean():.3g} MB)"
                why = f"against at least {percent(least)}"
                out.append(Evaluated(f"{study.name}, {length}", value, at_least(least, interval), why))
        return out or not_tested(f"no study holds finished runs of {indexer} and {reference}.")

    return evaluate


def loss_within(indexer: str, reference: str, share: float) -> Evaluation:
    """Losses that differ by less than a share of the loss."""

    def relative(mine: Array, theirs: Array, axis: int = -1) -> Array:
        return np.mean(mine, axis=axis) / np.mean(theirs, axis=axis) - 1

    def evaluate(studies: Studies) -> list[Evaluated]:
        out = []
        for study, mine, theirs, length in places(studies, indexer, reference):
            metric = loss_of(study)
            a, b = (study.analysis.prepared.quality(one, length, SCALES[metric]) for one in (mine, theirs))
            seeds = a.index.intersection(b.index)
            if len(seeds) > 1:  # a study of times may have but one
                values = a.loc[seeds].to_numpy(), b.loc[seeds].to_numpy()
                interval = bootstrap_interval(*values, of=relative)
                value = percent(float(relative(*values)), interval, sign=True) + " of the loss"
                value += f" ({signed(float((values[0] - values[1]).mean()), unit='nats')}, {len(seeds)} seeds)"
                verdict, why = within(share, interval), f"against less than {100 * share:g} % either way"
                barred = (length, "") not in rankable(study.analysis.discrimination)
                if barred:
                    verdict, why = (
                        "inconclusive",
                        "nothing may be ranked there: the loss tells no attention from another",
                    )
                where = f"{study.name}, {length}, {SCALES[metric].stage}"
                out.append(Evaluated(where, value, verdict, why, barred))
        return out or not_tested(f"no study holds finished runs of {indexer} and {reference}.")

    return evaluate


def loss_of(study: Study) -> str:
    """The loss after joint training where a study has it, else with the backbone untouched."""
    measured = {q.metric for q in study.analysis.qualities}
    return "val_loss" if "val_loss" in measured else "swap_val_loss"


def within(share: float, interval: Interval) -> Verdict:
    """The verdict on a difference of less than so much."""
    if interval is None:
        return "inconclusive"
    if -share < interval[0] and interval[1] < share:
        return "supported"
    return "not supported" if interval[0] >= share or interval[1] <= -share else "inconclusive"


def best_at(indexer: str, length: int, study_name: str, hours: int | None = None) -> Evaluation:
    """The best indexer at a length: supported only if every other is shown to be worse.

    Args:
        hours: that the study takes there on two cores, by its dry run, where it has not been run.
    """

    def evaluate(studies: Studies) -> list[Evaluated]:
        ran = parts_of(studies, study_name)
        asked = [found for one in ran if (found := judged(one, indexer, length)) is not None]
        command = f"python sweep.py study={study_name} seq_len={length} judge=swap finalists=null dry_run=true"
        takes = "" if hours is None else f"; it takes about {hours} hours on two cores ({command})"
        return asked or not_tested(f"{indexer} has no finished run at {length}{takes}.")

    return evaluate


def judged(study: Study, indexer: str, length: int) -> Evaluated | None:
    """Whether an indexer is the best of a study at a length; None where it has no run there."""
    prepared, label = study.analysis.prepared, label_of(study.analysis.prepared.meta, indexer)
    scale = SCALES[prepared.meta.metric]
    if label is None or prepared.quality(label, length, scale).empty:
        return None
    where = f"{study.name}, {length}"
    found = next((b for b in study.analysis.best if b.seq_len == length), None)
    if found is None or found.best is None:
        return Evaluated(where, "–", "inconclusive", "nothing may be ranked there")
    behind = paired(prepared.quality(label, length, scale), prepared.quality(found.best, length, scale))
    interval = bootstrap_interval(behind.to_numpy())
    value = f"{signed(float(behind.mean()), interval, scale.unit)} from the best, {found.best}"
    if label in found.worse:
        return Evaluated(where, value, "not supported", "shown to be worse than the best")
    rivals = [name for name in study.analysis.ranked[length, ""] if name not in (label, *found.worse)]
    if rivals:
        return Evaluated(where, value, "inconclusive", f"cannot be told from {listed(rivals)}")
    return Evaluated(where, f"best: {label}", "supported", "every other is shown to be worse")


def hypothesis_of(study_name: str) -> Evaluation:
    """The verdict of a study on its own hypothesis."""

    def evaluate(studies: Studies) -> list[Evaluated]:
        return [verdict_of(study) for study in parts_of(studies, study_name)] or not_tested(
            f"{study_name} was not run."
        )

    return evaluate


def verdict_of(study: Study) -> Evaluated:
    """What a study says of its own hypothesis."""
    analysis = study.analysis
    answer = analysis.answer
    verdict: Verdict = "inconclusive" if answer == "cannot discriminate" else answer
    return Evaluated(study.name, "–", verdict, analysis.sentence)


def parts_of(studies: Studies, name: str) -> list[Study]:
    """A study and those that ran it in parts, at other lengths or in an earlier version."""
    return [study for own, study in studies.items() if own == name or own.startswith(f"{name}_")]
