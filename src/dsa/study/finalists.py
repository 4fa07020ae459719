"""Which conditions go on from the selection to the confirmation."""

import statistics

from dsa.study.layers import compared
from dsa.study.plan import SELECTION, StudyPlan
from dsa.study.states import Results


def choose(plan: StudyPlan, results: Results) -> dict[tuple[int, str], list[str]] | None:
    """The best conditions by the mean swap_val_loss over the selection's seeds, and the baseline: by length, context.

    A condition of which a run failed is not chosen: its mean would be over other seeds.

    Returns: None while runs of the selection are missing.
    """
    runs = [run for run in plan.applicable if run.phase == SELECTION and run.role == "condition"]
    losses: dict[tuple[int, str], dict[str, list[float]]] = {}
    out_of_it: set[tuple[int, str]] = set()
    for run in runs:
        state = results.state(run)
        if state in ("missing", "stale"):
            return None
        result = results.of(run.folder)
        if state == "failed" or result is None or result.swap_val_loss is None:
            out_of_it.add((run.seq_len, run.label))
            continue
        losses.setdefault((run.seq_len, run.context), {}).setdefault(run.label, []).append(result.swap_val_loss)
    assert plan.study.finalists is not None
    out = {}
    for (seq_len, context), by_label in losses.items():
        means = {
            label: statistics.fmean(values)
            for label, values in by_label.items()
            if (seq_len, label) not in out_of_it and not is_baseline(plan, label)
        }
        best = sorted(means, key=lambda label: (means[label], label))[: plan.study.finalists]
        out[seq_len, context] = [label for label in plan.study.conditions if label in best or is_baseline(plan, label)]
    return out


def is_baseline(plan: StudyPlan, label: str) -> bool:
    """Whether a condition is the baseline, or what takes its place in another context: what it compares is the same."""
    same, other = (compared(plan.study.conditions[one], plan.study) for one in (label, plan.study.baseline))
    return label == plan.study.baseline or (bool(same) and same == other)
