"""The answer in one sentence of plain words, and the picture that shows it."""

from collections.abc import Callable
from dataclasses import dataclass

from dsa.analysis.inputs.scale import scale_of
from dsa.analysis.judgement.analysis import Analysis
from dsa.analysis.judgement.compare import CANNOT, Comparison
from dsa.analysis.judgement.contrasts import Contrast
from dsa.analysis.judgement.hypothesis import DEFAULT_CLAIM, claim_of, differing, spoken_of
from dsa.analysis.output.figures.spec import Chart
from dsa.analysis.output.report import times
from dsa.analysis.output.report.words import at, is_or_are, listed, names
from dsa.analysis.statistics.difference import Difference
from dsa.analysis.statistics.power import enough
from dsa.artifacts.names import OF_TURNS

FEW = "so few seeds carry no claim"
FALLBACK = ("differences", "quality", "accuracy")
BESIDE_CONTROLS = ("quality", "accuracy")
TIMED = "timed alone, from the least turn to the greatest"


@dataclass(frozen=True)
class Told:
    """How a claim is told.

    Args:
        claim: what the study claims, after "that".
        so: what is so where it is supported, where: the lengths and seeds.
        not_so: likewise where it is not.
        whether: what is open where it is inconclusive, after "whether".
        picture: the figure that shows it.
        because: why it is open where a declaration does not say it already.
    """

    claim: Callable[[Analysis], str]
    so: Callable[[Analysis], str]
    not_so: Callable[[Analysis], str]
    whether: Callable[[Analysis], str]
    picture: Callable[[Analysis], str]
    because: Callable[[Analysis], str] = lambda analysis: unseen(analysis)


def opening(analysis: Analysis) -> str:
    """The answer in one sentence."""
    if analysis.answer == CANNOT:
        return nothing(analysis)
    told = TOLD.get(claim_of(analysis.prepared.meta), TOLD[DEFAULT_CLAIM])
    if of_turns(analysis):
        lengths, rests = analysis.prepared.lengths, TIMED
    else:
        lengths, rests = ranked_lengths(analysis), basis(analysis)
    if analysis.answer == "supported":
        return f"{told.so(analysis)} ({rests})."
    if analysis.answer == "not supported":
        return f"{told.not_so(analysis)} ({rests})."
    return f"Not decided: whether {told.whether(analysis)} {at(lengths)}; {why(analysis, told)} ({rests})."


def claimed(analysis: Analysis) -> str:
    """What a study claims, which its verdict is about."""
    return TOLD.get(claim_of(analysis.prepared.meta), TOLD[DEFAULT_CLAIM]).claim(analysis)


def of_turns(analysis: Analysis) -> bool:
    """Whether a study's claim rests on times and not on seeds."""
    return claim_of(analysis.prepared.meta) in OF_TURNS


def nothing(analysis: Analysis) -> str:
    """Why nothing can be said."""
    if not analysis.discrimination:
        return "Nothing can be said yet: no condition has a finished run."
    lengths = [d.seq_len for d in analysis.discrimination]
    return (
        f"Nothing can be said about any condition {at(lengths)}: there dense attention, which sees every key, is not "
        f"shown to be better than selections that find nothing ({basis(analysis)})."
    )


def why(analysis: Analysis, told: Told) -> str:
    """Why a question is open."""
    if analysis.prepared.meta.exploratory:
        return "the study was declared too small for a claim before it ran"
    return told.because(analysis)


def unseen(analysis: Analysis) -> str:
    """What the seeds could not have shown of the comparisons."""
    if few(analysis):
        return FEW
    return missed(analysis, [c.difference for c in analysis.deciding if c.word == "inconclusive"])


def few(analysis: Analysis) -> bool:
    """Whether the comparisons have too few seeds to carry a claim."""
    return any(guard.name == "too few seeds" for guard in analysis.guards)


def missed(analysis: Analysis, still_open: list[Difference]) -> str:
    """How large a difference can stay unseen."""
    visible = [d.detectable for d in still_open if d.detectable is not None]
    if not visible:
        return "the differences are too small for these seeds"
    unit = scale_of(analysis.prepared.meta.metric).unit
    return f"differences of less than {max(visible):.2g} {unit} can stay unseen in so many seeds"


def undecided(analysis: Analysis) -> str:
    """Why contrasts are open: a condition of theirs is kept out of the ranking, or what the seeds could not show."""
    mine = [c for c in analysis.contrasts if c.name in contrasts(analysis)]
    if not mine:
        return "a condition that it compares may not be ranked, which is told below"
    if not all(enough(c.difference.seeds, c.comparisons) for c in mine):
        return FEW
    return missed(analysis, [c.difference for c in mine if not c.differs])


def basis(analysis: Analysis) -> str:
    """How many seeds, and in which state of the model."""
    meta = analysis.prepared.meta
    lengths = ranked_lengths(analysis) or analysis.prepared.lengths
    seeds = {
        q.seeds
        for q in analysis.qualities
        if q.kind == "condition" and q.metric == meta.metric and q.seq_len in lengths
    }
    if not seeds:
        return scale_of(meta.metric).stage
    count = f"{max(seeds)}" if len(seeds) == 1 else f"{min(seeds)} to {max(seeds)}"
    return f"{count} seed{'' if count == '1' else 's'}, {scale_of(meta.metric).stage}"


def unit_of(analysis: Analysis) -> str | None:
    """What one seed is and what may not be concluded, of a study on a model that is given; None of any other.

    There a seed draws no weights of the model: what differs between seeds is the training text and the indexers.
    """
    prepared = analysis.prepared
    if not prepared.pretrained:
        return None
    models = listed(prepared.models) or "a model"
    seeds = prepared.runs["seed"].nunique()
    return (
        f"The unit here is a draw of the indexers' initial weights and of the training text, {seeds} of them, on "
        f"{models} as it is: intervals and tests say how much those two draws matter, and nothing of how another "
        "model, another training of this one, or another held-out text would do. What is shown is shown of this model "
        "and this text; that it holds for models of its kind or size may not be concluded."
    )


def ranked_lengths(analysis: Analysis) -> list[int]:
    """The lengths at which something may be ranked."""
    return sorted({length for length, _ in analysis.ranked.fields})


def better_and_worse(comparisons: list[Comparison]) -> str:
    """Who is better or worse than what, length by length."""
    alike: dict[tuple[str, str, int], list[str]] = {}
    for c in comparisons:
        alike.setdefault((c.word, c.reference, c.seq_len), []).append(c.label)
    return "; ".join(
        f"{names(labels)} {is_or_are(labels)} {word} than {reference} {at([length])}"
        for (word, reference, length), labels in alike.items()
    )


def some_differ(analysis: Analysis) -> str:
    return better_and_worse(differing(analysis.deciding, spoken_of(analysis.prepared.meta)))


def all_equal(analysis: Analysis) -> str:
    meta = analysis.prepared.meta
    unit = scale_of(meta.metric).unit
    within = f"within the margin of {meta.margin.get(meta.metric, 0.0):g} {unit}"
    return f"Every condition equals {meta.baseline} {within} {at(ranked_lengths(analysis))}"


def nothing_lost(analysis: Analysis) -> str:
    named = spoken_of(analysis.prepared.meta)
    return f"{lose(named)} nothing against {analysis.prepared.meta.baseline} {at(ranked_lengths(analysis))}"


def lose(labels: list[str]) -> str:
    return f"{names(labels)} lose{'s' if len(labels) == 1 else ''}"


def something_lost(analysis: Analysis) -> str:
    named = spoken_of(analysis.prepared.meta)
    return better_and_worse([c for c in analysis.deciding if c.label in named and c.word == "worse"])


def contrasts(analysis: Analysis) -> list[str]:
    """The contrasts that the claim names."""
    meta = analysis.prepared.meta
    return list(meta.hypothesis.get("contrasts") or meta.contrasts)


def quoted(names: list[str]) -> str:
    return listed(f"“{name}”" for name in names)


def contrasts_matter(analysis: Analysis) -> str:
    """Each contrast once, with its size at each length."""
    mine: dict[str, list[Contrast]] = {}
    for c in analysis.contrasts:
        if c.name in contrasts(analysis) and c.since is None and c.differs:
            mine.setdefault(c.name, []).append(c)
    return "; ".join(f"{sides(analysis, name, found[0])} {listed(map(size, found))}" for name, found in mine.items())


def sides(analysis: Analysis, name: str, c: Contrast) -> str:
    """What a contrast sets against what, and which has more."""
    plus, minus = (names(analysis.prepared.meta.contrasts[name][side]) for side in ("plus", "minus"))
    more = "more" if c.difference.mean > 0 else "less"
    together = " together" if analysis.prepared.meta.contrasts[name].get("sums") else ""
    return f"“{name}”: {plus} {has_or_have(analysis, name)}{together} {more} {quantity(analysis)} than {minus}, by"


def has_or_have(analysis: Analysis, name: str) -> str:
    return "has" if len(analysis.prepared.meta.contrasts[name]["plus"]) == 1 else "have"


def quantity(analysis: Analysis) -> str:
    return scale_of(analysis.prepared.meta.metric).quantity


def size(c: Contrast) -> str:
    """How much at a length, with its interval; the direction is told beside it."""
    d, unit = c.difference, scale_of(c.metric).unit
    ends = sorted(abs(end) if d.mean * end > 0 else -abs(end) for end in d.interval) if d.interval else None
    return (
        f"{abs(d.mean):.3g}" + (f" [{ends[0]:.3g}, {ends[1]:.3g}]" if ends else "") + f" {unit} at {c.seq_len} tokens"
    )


def on_the_front(analysis: Analysis) -> str:
    named = spoken_of(analysis.prepared.meta)
    return f"Nothing else is as good as {names(named)} and cheaper {at(ranked_lengths(analysis))}"


def off_the_front(analysis: Analysis) -> str:
    cost = cost_of_claim(analysis)
    named = spoken_of(analysis.prepared.meta)
    alike: dict[tuple[str, int], list[str]] = {}
    for p in analysis.points:
        if p.label in named and p.cost == cost and not p.on_front:
            alike.setdefault((names(list(p.dominated_by)), p.seq_len), []).append(p.label)
    return "; ".join(
        f"instead of {names(labels)} take {over} {at([seq_len])}: as good and cheaper, or better and no dearer"
        for (over, seq_len), labels in alike.items()
    ).capitalize()


def cost_of_claim(analysis: Analysis) -> str:
    return str(analysis.prepared.meta.hypothesis.get("cost", "flops"))


def unchanged(analysis: Analysis, level: str) -> str:
    """Why it is open whether an order reverses."""
    if few(analysis):
        return FEW
    if level == "length" and len(ranked_lengths(analysis)) < 2:
        return "nothing can be ranked at a second length"
    return "no pair is shown to change places, nor all to keep theirs"


def depends_on(level: str) -> Told:
    """A claim that an order reverses."""
    return Told(
        claim=lambda a: f"which of two conditions is better depends on the {level}",
        so=lambda a: f"Which one is better depends on the {level}: {a.sentence.split(';')[0]}",
        not_so=lambda a: f"Every pair of conditions keeps its order at every {level}",
        whether=lambda a: f"the better one of two conditions changes with the {level}",
        picture=lambda a: "regret" if level == "length" else "differences",
        because=lambda a: unchanged(a, level),
    )


TOLD = {
    DEFAULT_CLAIM: Told(
        claim=lambda a: f"some condition differs from {a.prepared.meta.baseline}",
        so=some_differ,
        not_so=all_equal,
        whether=lambda a: f"any condition differs from {a.prepared.meta.baseline}",
        picture=lambda a: "differences",
    ),
    "no_quality_loss": Told(
        claim=lambda a: f"{lose(spoken_of(a.prepared.meta))} nothing against {a.prepared.meta.baseline}",
        so=nothing_lost,
        not_so=something_lost,
        whether=lambda a: f"{lose(spoken_of(a.prepared.meta))} anything against {a.prepared.meta.baseline}",
        picture=lambda a: "differences",
    ),
    "contrasts_differ": Told(
        claim=lambda a: f"{quoted(contrasts(a))} changes the {quantity(a)}",
        so=contrasts_matter,
        not_so=lambda a: f"{quoted(contrasts(a))} change nothing",
        whether=lambda a: f"{quoted(contrasts(a))} changes the {quantity(a)}",
        because=undecided,
        picture=lambda a: "contrasts",
    ),
    "on_pareto_front": Told(
        claim=lambda a: f"nothing else is as good as {names(spoken_of(a.prepared.meta))} and cheaper",
        so=on_the_front,
        not_so=off_the_front,
        whether=lambda a: f"something else is as good as {names(spoken_of(a.prepared.meta))} and cheaper",
        picture=lambda a: f"pareto_{cost_of_claim(a)}",
    ),
    "order_depends_on_length": depends_on("length"),
    "order_depends_on_size": depends_on("model"),
    "takes_less_time": Told(
        claim=times.claim,
        so=times.shown,
        not_so=times.refuted,
        whether=times.claim,
        picture=lambda a: "times",
        because=times.undecided,
    ),
    "cannot_discriminate": Told(
        claim=lambda a: "nothing can be told apart",
        so=nothing,
        not_so=lambda a: f"There is something to tell apart {at(ranked_lengths(a))}",
        whether=lambda a: "there is anything to tell apart",
        picture=lambda a: BESIDE_CONTROLS[0],
    ),
}


def picture(analysis: Analysis, drawn: list[Chart]) -> Chart | None:
    """The figure that shows the answer; the next best where the data has none, None where it has nothing to show."""
    told = TOLD.get(claim_of(analysis.prepared.meta), TOLD[DEFAULT_CLAIM])
    wanted = BESIDE_CONTROLS if analysis.answer == CANNOT else (told.picture(analysis), *FALLBACK)
    shown = {chart.name: chart for chart in drawn if chart.panels}
    return next((shown[name] for name in wanted if name in shown), None)
