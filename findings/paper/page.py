"""details.md of the findings: the questions that people ask, answered from all comparisons of the studies."""

import pandas as pd

from dsa.analysis.inputs.scale import SCALES
from dsa.analysis.output.report.words import listed
from paper.answers import (
    BASELINE,
    REDUCED,
    best_by_length,
    number_formats,
    random_tokens,
    smallest_indexer,
    time_bought,
)
from paper.evidence import Studies
from paper.markdown import table
from paper.short import contrasts, in_short
from paper.source import EARLY, Study
from paper.wanted import absent

HOW_MADE = """Written by `python findings/write.py` from the results that lie beside this page; no number here is typed
by hand. From run folders: `python findings/write.py outputs/<study> ... --to findings`.
What the original experiment claimed: [claims](claims.md)."""
HOW_READ = f"""Words: *better* or *worse* (paired sign-flip test, corrected by Holm over the comparisons at a length),
*equivalent* (two one-sided tests within the margin, and more than 80 % of seeds within it by an exact binomial test,
both corrected; ten seeds are too few for that), else *inconclusive*.
*Loses nothing* asks the same on one side alone. The t test stands beside and decides nothing.
Brackets hold 95 % BCa bootstrap intervals over seeds, unless they say otherwise.
`swap_val_loss` ({SCALES["swap_val_loss"].meaning}) decides; `val_loss` is measured {SCALES["val_loss"].meaning}."""


def findings_page(studies: Studies) -> str:
    """The whole page."""
    sections = {
        f"What is the smallest indexer that loses nothing against {BASELINE}?": smallest_indexer(studies),
        "What do the planned contrasts say?": [
            *(f"{name}:\n\n" + "\n".join(f"- {line}" for line in told) for name, told in contrasts(studies).items())
        ]
        or ["No study that planned any is here."],
        "Does the best configuration change with length?": best_by_length(studies),
        "Do coarser number formats of the index scores lose quality?": number_formats(studies),
        f"What does the smaller {REDUCED} buy over {BASELINE} in measured time?": time_bought(studies),
        "What do random tokens make of all this?": random_tokens(studies),
        "What was cut or is missing?": [*(f"- {line}" for line in absent(studies))] or ["Nothing."],
    }
    sections = {"In short": in_short(studies), **sections}
    body = [f"## {question}\n\n" + "\n\n".join(joined_lists(answer)) for question, answer in sections.items()]
    return "\n\n".join([introduction(studies), *body]) + "\n"


def joined_lists(parts: list[str]) -> list[str]:
    """Items of a list that follow each other as one block."""
    out: list[str] = []
    for part in parts:
        if part.startswith("- ") and out and out[-1].startswith("- "):
            out[-1] += f"\n{part}"
        else:
            out.append(part)
    return out


def introduction(studies: Studies) -> str:
    """Where the numbers come from, and how to read the words."""
    rows = [
        (
            f"[{name}]({name}/README.md)",
            ", ".join(map(str, study.analysis.prepared.lengths)) or "–",
            study.analysis.prepared.runs["seed"].nunique(),
            f"{len(study.analysis.prepared.runs)} of "
            f"{len(study.analysis.prepared.runs) + len(study.analysis.prepared.gaps)}",
            f"**{study.analysis.answer}**",
        )
        for name, study in studies.items()
    ]
    return "\n\n".join(
        joined_lists(
            [
                "# Findings in detail",
                HOW_MADE,
                HOW_READ,
                *(setting(study) for study in studies.values()),
                table(["study", "lengths", "seeds", "finished runs", "verdict on its hypothesis"], rows),
            ]
        )
    )


def setting(study: Study) -> str:
    """On what a study trained, and where."""
    prepared = study.analysis.prepared
    common = ", ".join(f"{key} {value}" for key, value in prepared.meta.common.items() if "." not in key)
    column = "provenance.machine.processor"
    known = prepared.runs.get(column, pd.Series(dtype=str)).dropna()
    processors = listed(sorted(known.unique())) or "a machine that was not recorded"
    return f"- {study.name}: {common}; trained on {processors}.{' ' + EARLY if study.early else ''}"
