"""Number formats of the index scores, each against fp32 of the same indexer."""

from dsa.analysis.inputs.scale import SCALES
from dsa.analysis.judgement.analysis import Analysis
from dsa.analysis.judgement.compare import Comparison, family
from dsa.analysis.judgement.discriminate import rankable
from dsa.analysis.judgement.guards import blocked
from dsa.analysis.output.report.words import listed
from dsa.analysis.statistics.paired import paired
from paper.markdown import number, table, verdict, visible

EXACT = "fp32"


def against_exact(analysis: Analysis, metric: str) -> list[Comparison]:
    """Every format against fp32 of the same indexer, corrected over all comparisons of a length.

    The study's own comparisons are with one baseline for all, and mix what a format does with what an indexer does.
    """
    prepared, scale = analysis.prepared, SCALES[metric]
    options = prepared.meta.conditions
    margin = prepared.meta.margin.get(metric, 0.0)
    exact = {o.get("indexer"): label for label, o in options.items() if o.get("precision", EXACT) == EXACT}
    out = []
    for seq_len, _ in sorted(rankable(analysis.discrimination)):
        pairs = {}
        for label, o in options.items():
            reference = exact.get(o.get("indexer"))
            if reference is None or o.get("precision", EXACT) == EXACT:
                continue
            mine, theirs = (prepared.quality(one, seq_len, scale) for one in (label, reference))
            d = paired(mine, theirs)
            if len(d):
                pairs[label, reference] = d
        out += family(pairs, seq_len, scale, margin, silent=blocked(analysis.guards, seq_len))
    return out


def formats(analysis: Analysis) -> list[str]:
    """The number formats of a study's conditions but fp32, in its order."""
    found = [options.get("precision") for options in analysis.prepared.meta.conditions.values()]
    return [str(name) for name in dict.fromkeys(found) if name not in (None, EXACT)]


def of_format(analysis: Analysis, name: str, comparisons: list[Comparison]) -> list[Comparison]:
    """The comparisons of one format."""
    return [c for c in comparisons if analysis.prepared.meta.conditions[c.label].get("precision") == name]


def grid(analysis: Analysis, comparisons: list[Comparison], unit: str) -> str:
    """Formats down, indexers and lengths across."""
    found = {(c.label, c.seq_len): c for c in comparisons}
    options = analysis.prepared.meta.conditions
    columns = list(dict.fromkeys((options[c.label].get("indexer"), c.seq_len) for c in comparisons))
    labels = {(o.get("precision"), o.get("indexer")): label for label, o in options.items()}
    rows = []
    for name in formats(analysis):
        cells = [found.get((labels.get((name, indexer), ""), n)) for indexer, n in columns]
        rows.append([name, *("not run" if c is None else verdict(c, unit) for c in cells)])
    return table(["format", *(f"{indexer} at {n}" for indexer, n in columns)], rows)


def summary(analysis: Analysis, comparisons: list[Comparison]) -> str:
    """All formats in one sentence."""
    kinds: dict[str, list[str]] = {}
    for name in formats(analysis):
        mine = of_format(analysis, name, comparisons)
        if not mine:
            kind = "not run"
        elif any(c.word == "worse" for c in mine):
            kind = "worse in some comparison"
        elif all(c.loses_nothing for c in mine):
            kind = "nothing is lost in any comparison"
        else:
            kind = "inconclusive in some comparison and worse in none"
        kinds.setdefault(kind, []).append(name)
    return "; ".join(f"{kind}: {listed(names)}" for kind, names in kinds.items())


def sentence(name: str, mine: list[Comparison], unit: str) -> str:
    """What became of one format over all indexers and lengths."""
    if not mine:
        return f"**{name}**: not run."
    words = {w: [c for c in mine if c.word == w] for w in ("equivalent", "better", "worse", "inconclusive")}
    largest = max(mine, key=lambda c: abs(c.difference.mean))
    counts = listed(f"{word} in {len(found)}" for word, found in words.items() if found)
    where = f"at {listed(dict.fromkeys(c.seq_len for c in mine))}"
    out = (
        f"**{name}** against {EXACT} {where}: {counts} of {len(mine)} comparisons; largest difference "
        f"{largest.difference.mean:+.3g} {unit} ({largest.label} at {largest.seq_len})."
    )
    worse, open_ = (listed(f"{c.label} at {c.seq_len}" for c in words[w]) for w in ("worse", "inconclusive"))
    if worse:
        out += f" Worse: {worse}."
    if open_:
        out += (
            f" Inconclusive: {open_} (smallest effect that could have been seen: {visible(words['inconclusive'])} "
            f"{unit}, margin {number(mine[0].margin)})."
        )
    return out
