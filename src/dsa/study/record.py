"""study.json: the plan as plain data, for whoever reads a study's folder."""

from typing import Any

from dsa.study.plan import StudyPlan
from dsa.study.planned import PlannedRun
from dsa.study.states import roots_of

ELSEWHERE = ("output_dir", "stale")  # typed beside a study's settings, and nothing of what it compares


def record(plan: StudyPlan) -> dict[str, Any]:
    """Question, conditions, and which run is which.

    `codes` says for each fingerprint of source which modules and classes it covers; `logger` how its runs are logged.
    """
    study = plan.study
    codes = {run.graph.code: roots_of(run.graph) for run in plan.applicable}
    return {
        "name": study.name,
        "question": study.question,
        "hypothesis": study.hypothesis,
        "metric": study.metric,
        "baseline": study.baseline,
        "margin": study.margin,
        "controls": list(study.controls),
        "budget": study.budget,
        "contrasts": study.contrasts,
        "exploratory": study.exploratory,
        "judge": study.judge,
        "finalists": study.finalists,
        "chosen": [
            {"seq_len": seq_len, "context": context, "labels": labels}
            for (seq_len, context), labels in plan.chosen.items()
        ],
        "seq_len": study.seq_len,
        "seed": study.seed,
        "conditions": study.conditions,
        "common": {key: value for key, value in study.common.items() if key not in ELSEWHERE},
        "logger": plan.runs[0].spec.logger.node,
        "codes": codes,
        "runs": [of_a_run(run) for run in plan.runs],
    }


def of_a_run(run: PlannedRun) -> dict[str, Any]:
    """One run: what it is compared as, where its result lies, and what it is made of."""
    applies = run.reason is None
    graph = run.graph if applies else None
    needs = {} if graph is None else {
        "base": graph.base, "indexers": graph.indexers, "joint": graph.joint, "control": graph.control
    }  # fmt: skip
    return {
        "label": run.label,
        "role": run.role,
        "kind": run.compared_as,
        "context": run.context,
        "seq_len": run.seq_len,
        "seed": run.seed,
        "indexer_seed": run.spec.indexer_seed,
        "judge": run.judge,
        "phase": run.phase,
        "run_id": run.folder.name if applies else None,
        "config_hash": run.hash if applies else None,
        "code": None if graph is None else graph.code,
        "artifacts": {kind: None if need is None else need.name for kind, need in needs.items()},
        "study": run.study,
        "not_applicable": run.reason,
    }
