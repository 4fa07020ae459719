"""README.md of the findings: for a reader with a minute, each question with its answer and one picture."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from dsa.analysis.judgement.analysis import Analysis
from dsa.analysis.judgement.guards import OTHER_BUDGETS
from dsa.analysis.output.report.answer import basis, opening
from dsa.analysis.output.report.use import use
from dsa.config import config_dir, read_config
from paper import formats
from paper.answers import FORMATS
from paper.by_hand import Page
from paper.evidence import Studies
from paper.markdown import table
from paper.source import EARLY, Study
from paper.study import shown

ASKED = (
    "optimal_indexer_config",
    "attention_pattern_analysis",
    "k_value_optimization",
    "quantization_effectiveness",
    "optimization_combinations",
)
"""The studies that were asked for, in order; their questions stand in conf/study."""

ALSO = {"optimal_indexer_config": ("head_weights", "warm_up_recall", "positive_weights", "negative_weights_long")}
"""Studies that a question's answer leads to: what its own do not ask and a reader has to know."""

HOW_MADE = """Five questions, an answer and a picture for each, from the studies in the folders beside this page; then
a line for every other study, those [of a pretrained model](pretrained.md) first.
Written by `python findings/write.py`; no number and no answer is typed by hand. A study that is not here yet has no
answer yet. [All comparisons, times and what is missing](details.md); [what the original experiment claimed](claims.md).
*Backbone untouched* judges the indexer alone, *after joint training* what a user gets; brackets hold 95 % intervals
over seeds, which say how large and never whether: tests decide, corrected for their number. Studies of one length and
task share bases and indexers, so that they are not independent of each other. Every study's own page ends with its
words."""
PRETRAINED = """What was asked of a pretrained model, with tables and pictures; [the first page](README.md) has a line
for each and says how to read them. Written by `python findings/write.py`; no number and no answer is typed by hand.
Which is the smallest indexer that loses nothing against `h4d64`, which against dense attention, what a head buys
and whether the recall task's findings carry over is put together from these studies
in [Told in full](../docs/evidence.md#how-small-may-the-indexer-be)."""
STEPS = "recipe.warmup.steps"
OWN_STEPS = read_config(config_dir() / "recipe" / "pretrained.yaml")["warmup"]["steps"]
"""Of a study of a pretrained model that says none; a step is a row."""
BY_HAND = "Single runs, opened up by commands that each page names; these pages are written by hand."
NOT_YET = "Not answered yet: the study `{name}` has no results here. `python sweep.py study={name}` runs it."


@dataclass(frozen=True)
class Question:
    """One of the five, with its study if that is here.

    Args:
        others: studies of the same question at other lengths.
        also: studies that its answer leads to.
    """

    name: str
    study: Study | None
    others: tuple[Study, ...] = ()
    also: tuple[Study, ...] = ()

    @property
    def asked(self) -> str:
        """As the study's results say it, or its plan."""
        if self.study is not None:
            return self.study.analysis.prepared.meta.question
        return str(read_config(config_dir() / "study" / f"{self.name}.yaml", resolve=False)["question"])


def first_page(studies: Studies, by_hand: Sequence[Page] = ()) -> str:
    """The whole page."""
    questions = [question_of(name, studies) for name in ASKED]
    parts = ["# Findings", HOW_MADE]
    for number, question in enumerate(questions, 1):
        parts += [f"## {number}. {question.asked}", *answer(question)]
    answered = {study.name for question in questions for study in (question.study, *question.others) if study}
    of_a_model = of_pretrained_models(studies)
    rest = [study for name, study in studies.items() if name not in answered and study not in of_a_model]
    if of_a_model:
        parts += ["## Of a pretrained model", "[Each with its table and picture](pretrained.md).", lines(of_a_model)]
    if rest:
        parts += ["## What else was asked", lines(rest)]
    if by_hand:
        parts += ["## What was looked into", BY_HAND, "\n".join(page.line for page in by_hand)]
    return "\n\n".join(parts) + "\n"


def pretrained_page(studies: Studies) -> str:
    """pretrained.md: the studies of pretrained models, each with its answer, its picture and what to use."""
    parts = ["# Findings on a pretrained model", PRETRAINED]
    for study in of_pretrained_models(studies):
        asked = study.analysis.prepared.meta.question
        parts += [f"## {asked}", of_one_model(study), *answer(Question(study.name, study))]
    return "\n\n".join(parts) + "\n"


def of_pretrained_models(studies: Studies) -> list[Study]:
    """In the order of the studies."""
    return [study for study in studies.values() if study.analysis.prepared.pretrained]


def lines(studies: Sequence[Study]) -> str:
    """A line for each."""
    return "\n".join(line_of(study, opening(study.analysis)) for study in studies)


def question_of(name: str, studies: Studies) -> Question:
    """One of the five with the first of its studies that decides its claim; the first of all if none does."""
    mine = [study for own, study in studies.items() if re.fullmatch(rf"{name}(_\d+)?", own)]
    deciding = [study for study in mine if study.analysis.answer in ("supported", "not supported")]
    best = next(iter([*deciding, *mine]), None)
    also = tuple(studies[other] for other in ALSO.get(name, ()) if other in studies)
    return Question(name, best, tuple(study for study in mine if study is not best), also)


def answer(question: Question) -> list[str]:
    """The answer in a sentence, its picture, and what to use."""
    if question.study is None:
        return [NOT_YET.format(name=question.name)]
    analysis, name = question.study.analysis, question.study.name
    grid = use(analysis)
    pictured = shown(analysis, "format_error" if question.name == FORMATS else None)
    return [
        f"**{said(question, analysis)}**",
        *([f"![{pictured.title}]({name}/{pictured.name}.png)"] if pictured else []),
        table(grid.columns, [[cell.text for cell in row] for row in grid.rows]),
        f"[The study]({name}/README.md): {len(analysis.prepared.runs)} runs. {grid.note}",
        *(f"To bear in mind: {guard.sentence}" for guard in analysis.guards if guard.name == OTHER_BUDGETS),
        *(
            ["\n".join(line_of(study, said(question, study.analysis)) for study in question.others)]
            if question.others
            else []
        ),
        *([f"To know beside it:\n\n{lines(question.also)}"] if question.also else []),
    ]


def said(question: Question, analysis: Analysis) -> str:
    """A study's answer to one of the five in a sentence."""
    return formats_alone(analysis) if question.name == FORMATS else opening(analysis)


def formats_alone(analysis: Analysis) -> str:
    """Each format against fp32 of the same indexer; where nothing may be compared, what the study says."""
    compared = formats.against_exact(analysis, analysis.prepared.meta.metric)
    if not compared:
        return opening(analysis)
    return f"Against fp32 of the same indexer: {formats.summary(analysis, compared)} ({basis(analysis)})."


def of_one_model(study: Study) -> str:
    """Which model, with what an indexer aims at there and what none is needed for."""
    analysis = study.analysis
    metric, prepared = analysis.prepared.meta.metric, analysis.prepared
    parts = []
    for length in sorted(prepared.runs["seq_len"].unique()):
        means = {
            kind: prepared.rows(kind, length)[metric].mean()
            for kind in ("dense", "oracle", "sink_window")
            if len(prepared.rows(kind, length))
        }
        if means:
            parts.append(f"at {length} tokens " + ", ".join(f"{kind} {mean:.3f}" for kind, mean in means.items()))
    models, meta = " and ".join(sorted(prepared.runs["model"].unique())), prepared.meta
    own = prepared.runs[prepared.runs["label"] == meta.baseline]
    kept = own.reindex(columns=["seq_len", "mean_k"]).dropna().groupby("seq_len")["mean_k"].mean()
    keys = "; ".join(f"{mean:.0f} at {length} tokens" for length, mean in kept.items())
    average = f" Keys that a query of {meta.baseline} keeps on average: {keys}." if keys else ""
    controls = f" Loss of the controls [nats a token]: {'; '.join(parts)}." if parts else ""
    return (
        f"Of {models}, as it is; {prepared.runs['seed'].nunique()} draws of the training text and of the indexers, one "
        f"model: what is said here is said of it alone. Rows of warm-up: {meta.common.get(STEPS, OWN_STEPS)}, where a "
        f"condition says no other.{average}{controls}"
    )


def line_of(study: Study, answer: str) -> str:
    """Another study in a line, and whether an earlier version ran it, otherwise than the rest."""
    asked = study.analysis.prepared.meta.question
    return f"- [{study.name}]({study.name}/README.md). {asked} **{answer}**{' ' + EARLY if study.early else ''}"
