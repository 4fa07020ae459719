"""What a reader must know before believing a study's verdict."""

import itertools
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Literal

import numpy as np

from dsa.analysis.inputs.cost import COSTS, DENSE_FLOPS, cost_of, speed_obstacle
from dsa.analysis.inputs.prepared import Prepared
from dsa.analysis.inputs.scale import Scale
from dsa.analysis.judgement.compare import CANNOT, Comparison
from dsa.analysis.judgement.discriminate import SLACK, Discrimination
from dsa.analysis.statistics.difference import difference
from dsa.analysis.statistics.paired import one_number
from dsa.analysis.statistics.power import carries_no_claim, enough, seeds_for_no_loss
from dsa.analysis.statistics.values import ALPHA

SAME_BUDGET = 1.1
OTHER_BUDGETS: Literal["other budgets where asked"] = "other budgets where asked"
KL_ASKED = "selection.mean.kl_asked"
"""Mean budgets of at most this ratio are called one budget."""


@dataclass(frozen=True)
class Guard:
    """One thing to know. blocks: nothing, or this label, is ranked at this length because of it."""

    name: Literal[
        "cannot discriminate", "uninformative loss", "better than dense", "identical conditions", "too few seeds",
        "too few seeds for no loss",
        "missing runs", "failed runs", "not applicable", "no speed claim", "dearer than dense",
        "noise floor", "unsolved bases",
        "different numbers of threads", "other budgets where asked", "one number for all seeds",
    ]  # fmt: skip
    seq_len: int | None
    labels: tuple[str, ...]
    blocks: bool
    sentence: str


def guards(
    prepared: Prepared,
    scale: Scale,
    found: list[Discrimination],
    comparisons: list[Comparison],
    to_dense: list[Comparison],
) -> list[Guard]:
    """Every guard that has something to say.

    Args:
        comparisons: with the baseline, on the primary metric.
        to_dense: with dense attention, on the primary metric.
    """
    out = [Guard("cannot discriminate", d.seq_len, (), True, d.sentence) for d in found if not d.possible]
    for seq_len in prepared.lengths:
        out += uninformative(prepared, seq_len)
        out += identical(prepared, seq_len, scale)
        out += too_few(prepared, seq_len, [c for c in comparisons if c.seq_len == seq_len])
        out += unreal_speed(prepared, seq_len)
        out += dearer_than_dense(prepared, seq_len)
        out += noise_floor(prepared, seq_len, scale)
        out += unsolved(prepared, seq_len)
        out += uneven_threads(prepared, seq_len)
        out += other_budgets(prepared, seq_len)
        out += same_for_all_seeds(prepared, seq_len, scale)
    return out + [guard for c in to_dense if (guard := better_than_dense(c, scale))] + incomplete(prepared)


def blocked(known: list[Guard], seq_len: int) -> set[str]:
    """Conditions that nobody may rank at a length."""
    return {label for guard in known if guard.blocks and guard.seq_len == seq_len for label in guard.labels}


def uninformative(prepared: Prepared, seq_len: int) -> list[Guard]:
    """Conditions whose loss after training is at or above the unigram entropy."""
    losses: dict[str, tuple[float, float]] = {}
    for label in prepared.conditions(seq_len):
        loss, unigram = (prepared.column(label, seq_len, name) for name in ("val_loss", "unigram_loss"))
        if len(loss) and len(unigram) and loss.mean() > unigram.mean() - SLACK:
            losses[label] = float(loss.mean()), float(unigram.mean())
    if not losses:
        return []
    told = ", ".join(f"{label} {loss:.4f}" for label, (loss, _) in losses.items())
    sentence = (
        f"at {seq_len}: a loss that is not below the unigram entropy ({next(iter(losses.values()))[1]:.4f}) says "
        f"nothing about attention, and is not ranked: {told}."
    )
    return [Guard("uninformative loss", seq_len, tuple(losses), True, sentence)]


def better_than_dense(c: Comparison, scale: Scale) -> Guard | None:
    """A condition that beats dense attention beyond its interval; one that does so beyond the margin is not ranked.

    One measurement has no interval: then the margin alone.
    """
    intervals = [interval for interval in (c.difference.interval, c.difference.t_interval) if interval is not None]
    bounds = [scale.sign * bound for interval in intervals for bound in interval] or [scale.sign * c.difference.mean]
    beyond = abs(c.difference.mean) > c.margin
    if max(bounds) >= 0 or not (intervals or beyond):
        return None
    what = "its interval" if intervals else "the margin"
    sentence = (
        f"{c.label} at {c.seq_len} is better than dense attention by {abs(c.difference.mean):.4g} {scale.unit}, beyond "
        f"{what}: a leak or an error until explained" + ("; it is not ranked." if beyond else ".")
    )
    return Guard("better than dense", c.seq_len, (c.label,), beyond, sentence)


def identical(prepared: Prepared, seq_len: int, scale: Scale) -> list[Guard]:
    """Conditions that measured exactly the same in every seed: one condition under several names."""
    groups: dict[tuple, list[str]] = defaultdict(list)
    for label in prepared.conditions(seq_len):
        names = dict.fromkeys([scale.metric, "val_loss", "swap_val_loss", "density", "params.total"])
        prints = tuple(tuple(prepared.column(label, seq_len, name).items()) for name in names)
        groups[prints].append(label)
    out = []
    for labels in groups.values():
        if len(labels) > 1:
            sentence = f"at {seq_len}: {', '.join(labels)} are one condition: equal to the last digit in every seed."
            out.append(Guard("identical conditions", seq_len, tuple(labels), False, sentence))
    return out


def too_few(prepared: Prepared, seq_len: int, comparisons: list[Comparison]) -> list[Guard]:
    """Comparisons that no claim can rest on."""
    comparisons = [c for c in comparisons if c.word != CANNOT]
    short = [c for c in comparisons if not enough(c.difference.seeds, c.comparisons)]
    if not short:
        return too_few_for_no_loss(seq_len, comparisons)
    least, count = min(c.difference.seeds for c in short), short[0].comparisons
    sentence = f"at {seq_len}: {carries_no_claim(least, count)}" + (
        "; the study is exploratory." if prepared.meta.exploratory else "."
    )
    return [Guard("too few seeds", seq_len, tuple(c.label for c in short), False, sentence)]


def too_few_for_no_loss(seq_len: int, comparisons: list[Comparison]) -> list[Guard]:
    """Comparisons that can show a difference, and never that there is none."""
    short = [c for c in comparisons if c.margin and c.difference.seeds < seeds_for_no_loss(c.comparisons)]
    if not short:
        return []
    fewest, count = min(c.difference.seeds for c in short), short[0].comparisons
    sentence = (
        f"at {seq_len}: {fewest} seeds can show a difference, never that nothing is lost: over {count} "
        f"comparisons that takes {seeds_for_no_loss(count)} seeds, all of them within the margin."
    )
    return [Guard("too few seeds for no loss", seq_len, tuple(c.label for c in short), False, sentence)]


def unreal_speed(prepared: Prepared, seq_len: int) -> list[Guard]:
    """Conditions whose times are not ranked, by reason."""
    reasons: dict[str, list[str]] = defaultdict(list)
    for label in prepared.conditions(seq_len):
        reason = speed_obstacle(prepared, label, seq_len)
        if reason:
            reasons[reason].append(label)
    out = []
    for reason, labels in reasons.items():
        sentence = f"at {seq_len}: the speed of {', '.join(labels)} is not ranked: {reason}."
        out.append(Guard("no speed claim", seq_len, tuple(labels), False, sentence))
    return out


def dearer_than_dense(prepared: Prepared, seq_len: int) -> list[Guard]:
    """Conditions whose attention with its indexer counts more operations than the dense attention it replaces."""
    shares: dict[str, float] = {}
    for label in prepared.conditions(seq_len):
        mine, dense = cost_of(prepared, label, seq_len, COSTS["flops"]), prepared.column(label, seq_len, DENSE_FLOPS)
        if len(mine) and len(dense) and mine.mean() > dense.mean():
            shares[label] = float(mine.mean() / dense.mean())
    if not shares:
        return []
    told = ", ".join(f"{label} {share:.0%}" for label, share in shares.items())
    sentence = f"at {seq_len}: more operations than the dense attention that is replaced, so no saving there: {told}."
    return [Guard("dearer than dense", seq_len, tuple(shares), False, sentence)]


def noise_floor(prepared: Prepared, seq_len: int, scale: Scale) -> list[Guard]:
    """What the baseline differs from itself under other initial indexers (A/A): so much another draw makes."""
    out = []
    for context in prepared.contexts:
        again = prepared.control("replicate", context)
        first = next((c for c in prepared.conditions(seq_len, context) if prepared.meta.reference(c) == c), None)
        if again is None or first is None:
            continue
        values = (prepared.quality(again, seq_len, scale) - prepared.quality(first, seq_len, scale)).dropna()
        if len(values) < 2:
            continue
        d = difference(values, prepared.meta.margin.get(scale.metric, 0.0), 1, scale.sign)
        interval = f" [{d.interval[0]:+.3g}, {d.interval[1]:+.3g}]" if d.interval else ""
        told = "told apart from itself, as by chance 1 study in 20 is" if d.p < ALPHA else "not told apart from itself"
        sentence = (
            f"at {seq_len}: {first} under other initial indexers differs from itself by {d.mean:+.3g} {scale.unit}"
            f"{interval}, by up to {np.abs(values).max():.3g} in a seed (p {d.p:.2g}, {told}). Differences between "
            "indexers of one seed hold such noise; those between patterns, budgets or formats of one indexer do not."
        )
        out.append(Guard("noise floor", seq_len, (again,), False, sentence))
    return out


def unsolved(prepared: Prepared, seq_len: int) -> list[Guard]:
    """Bases that were to be trained until their task is solved, and were not."""
    seeds: set[int] = set()
    for label in prepared.conditions(seq_len):
        rows = prepared.rows(label, seq_len)
        if "base_training.until" in rows and "base_training.solved_at" in rows:
            wanted = rows["base_training.until"].notna()
            seeds |= set(rows.index[wanted & rows["base_training.solved_at"].isna()])
    if not seeds:
        return []
    told = ", ".join(map(str, sorted(seeds)))
    sentence = f"at {seq_len}: the base did not reach its accuracy in seeds {told}; length and convergence mix there."
    return [Guard("unsolved bases", seq_len, (), False, sentence)]


def uneven_threads(prepared: Prepared, seq_len: int) -> list[Guard]:
    """Runs of one seed that different numbers of threads trained: each number rounds otherwise."""
    rows = prepared.runs[prepared.runs["seq_len"] == seq_len]
    counts: dict[str, set[int]] = defaultdict(set)
    for column in (f"provenance.threads_of.{kind}" for kind in ("base", "indexers", "joint")):
        known = rows.dropna(subset=[column]) if column in rows else rows.iloc[:0]
        for _, paired in known.groupby(["context", "seed"]):
            if paired[column].nunique() > 1:
                for label, count in zip(paired["label"], paired[column], strict=True):
                    counts[label].add(int(count))
    if not counts:
        return []
    told = ", ".join(f"{label} {' and '.join(map(str, sorted(own)))}" for label, own in counts.items())
    sentence = (
        f"at {seq_len}: different numbers of threads trained what is compared ({told}), and each rounds otherwise: "
        "part of a difference may be rounding."
    )
    return [Guard("different numbers of threads", seq_len, tuple(counts), False, sentence)]


def other_budgets(prepared: Prepared, seq_len: int) -> list[Guard]:
    """Conditions of one mean budget that keep other numbers of keys for the queries whose loss counts."""
    mean, asked = (
        {label: float(prepared.column(label, seq_len, name).mean()) for label in prepared.conditions(seq_len)}
        for name in ("mean_k", "selection.mean.mean_k_asked")
    )
    known = sorted((label for label in mean if np.isfinite(asked[label])), key=lambda label: mean[label])
    selectors = {str(prepared.meta.options(label).get("selector")) for label in prepared.meta.conditions}
    if not known and len(selectors) > 1 and any(len(prepared.column(label, seq_len, KL_ASKED)) for label in mean):
        sentence = (
            f"at {seq_len}: how many keys the queries keep that are asked, whose loss alone counts, was not recorded: "
            "of selectors with one mean budget some may give these more than others."
        )
        return [Guard(OTHER_BUDGETS, seq_len, (), False, sentence)]
    told: dict[str, None] = {}
    for a, b in itertools.combinations(known, 2):
        if mean[b] <= SAME_BUDGET * mean[a] and max(asked[a], asked[b]) > SAME_BUDGET * min(asked[a], asked[b]):
            told |= {a: None, b: None}
    if not told:
        return []
    budgets = ", ".join(f"{label} {asked[label]:.3g} (mean over all {mean[label]:.3g})" for label in told)
    sentence = (
        f"at {seq_len}: the queries that are asked, whose loss alone counts, keep other numbers of keys than the mean "
        f"over all queries says, so that equal means are no equal budgets: {budgets}."
    )
    return [Guard(OTHER_BUDGETS, seq_len, tuple(told), False, sentence)]


def same_for_all_seeds(prepared: Prepared, seq_len: int, scale: Scale) -> list[Guard]:
    """Conditions of a given model in which nothing is drawn."""
    if not prepared.pretrained:
        return []
    values = {label: prepared.quality(label, seq_len, scale) for label in prepared.conditions(seq_len)}
    same = tuple(label for label, by_seed in values.items() if one_number(by_seed.to_numpy()))
    if not same:
        return []
    sentence = (
        f"at {seq_len}: {', '.join(same)}: one number for all seeds, for the model and the rows are the same and "
        "nothing is drawn. Against each other, and against dense attention, it counts once."
    )
    return [Guard("one number for all seeds", seq_len, same, False, sentence)]


def incomplete(prepared: Prepared) -> list[Guard]:
    """Planned runs without a result, by condition and length."""
    names = {"missing": "missing runs", "failed": "failed runs", "not applicable": "not applicable"}
    counts = Counter((gap.state, gap.label, gap.seq_len, gap.reason) for gap in prepared.gaps)
    return [
        Guard(
            names[state],  # type: ignore[arg-type]
            seq_len,
            (label,),
            False,
            f"{label} at {seq_len}: {count} runs {state}" + (f": {reason}" if reason else "") + ".",
        )
        for (state, label, seq_len, reason), count in counts.items()
    ]
