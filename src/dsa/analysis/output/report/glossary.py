"""The words of a report: each metric and control that it uses, with its unit, in a line."""

from dataclasses import dataclass

from dsa.analysis.judgement.analysis import Analysis
from dsa.artifacts.names import CONTROLS


@dataclass(frozen=True)
class Entry:
    """A word.

    Args:
        fields: what tables and files call it.
        unit: empty if it has none.
        where: columns of the runs, one of which has to be measured for the word to be used; empty = always used.
    """

    name: str
    unit: str
    meaning: str
    fields: tuple[str, ...] = ()
    where: tuple[str, ...] = ()


def measured(name: str, unit: str, meaning: str, *fields: str) -> Entry:
    """A word that is used where a run measured one of its fields."""
    return Entry(name, unit, meaning, fields, fields)


NATS = "nats per token"
SHARE = "share, 0 to 1"
METRICS = (
    measured(
        "loss, backbone untouched",
        NATS,
        "cross-entropy on held-out data with the selection put on the dense model as it was trained: it "
        "judges the indexer alone; less is better",
        "swap_val_loss",
    ),
    measured(
        "loss, after joint training",
        NATS,
        "the same after model and indexers were trained on together with the selection on: what a user gets",
        "val_loss",
    ),
    measured(
        "accuracy, backbone untouched",
        SHARE,
        "share of the asked tokens that were the likeliest, as above; more is better",
        "swap_val_accuracy",
    ),
    measured(
        "accuracy, after joint training",
        SHARE,
        "the same after joint training",
        "val_accuracy",
    ),
    measured(
        "exact match, backbone untouched",
        SHARE,
        "share of the rows of which every asked token was the likeliest, as above; more is better",
        "swap_val_exact_match",
    ),
    measured(
        "exact match, after joint training",
        SHARE,
        "the same after joint training",
        "val_exact_match",
    ),
    measured(
        "dense loss",
        NATS,
        "loss of dense attention that was trained as long",
        "dense_val_loss",
    ),
    Entry(
        "difference",
        "unit of the metric",
        "condition less baseline (or less dense attention), paired by seed; low and high: its 95 % bootstrap "
        "interval (BCa), which says how large it is, never whether it is there",
        ("difference", "beside dense", "low", "high"),
    ),
    Entry(
        "p",
        "probability",
        "how often so large a difference would appear if the two labels meant nothing (paired sign-flip "
        "test); p Holm is corrected for the number of comparisons and decides; the t test decides nothing",
        ("p", "p Holm", "p t test"),
    ),
    Entry(
        "p of no loss",
        "probability",
        "of the hypothesis that the mean lies outside the margin or at most 80 % of seeds lie within it (two one-sided "
        "t tests, exact binomial test, the larger p of both), corrected by Holm; below 0.05 a condition is equivalent. "
        "The seeds' part holds whatever the shape, the mean's not where few seeds fail by much",
        ("p_no_loss_holm",),
    ),
    Entry(
        "standing",
        "",
        "what a recommendation is worth: the condition is shown to lose nothing against the baseline, or it is the "
        "baseline, because nothing cheaper is shown to, or it is only the best measured",
        ("standing",),
    ),
    Entry(
        "detectable",
        "unit of the metric",
        "smallest difference that the study would have shown in four of five repetitions",
        ("detectable",),
    ),
    Entry(
        "margin",
        "unit of the metric",
        "largest difference that counts as none, named before the study ran",
        ("within margin",),
    ),
    Entry(
        "success rate",
        "share of seeds",
        "seeds that lose no more than the margin against the baseline, with Clopper and Pearson's exact 95 % interval",
        ("success rate", "seeds beyond margin", "worst", "worst seed"),
    ),
    Entry(
        "excess over the oracle",
        "unit of the metric",
        "what is lost beyond the keys of highest attention at the same budget; a seed whose excess is above "
        "the margin has failed",
    ),
    Entry(
        "regret",
        "unit of the metric",
        "what one condition loses against the best one of each length",
        ("regret",),
    ),
    Entry(
        "headroom and recovered",
        "unit of the metric; share",
        "headroom: loss of keeping the nearest keys (of a pretrained model the first and the nearest), at most that of "
        "chance, less that of dense attention; recovered: the share of it that a condition gains: 0 is those keys, 1 "
        "is dense",
        ("headroom", "recovered"),
    ),
    Entry(
        "operations",
        "multiplications and additions a sequence, forward",
        "of attention with its indexer, counted, not timed; dense attention is 100 %",
        ("operations", "operations (dense = 100 %)"),
        ("flops.sparse_attention",),
    ),
    measured(
        "indexer parameters",
        "count",
        "weights of the indexers of all layers, key norms apart",
        "params.indexer",
    ),
    measured(
        "step time",
        "ms",
        "wall time of a training step; only times taken alone, in turns, are ranked; contended: other "
        "processes were busy",
        "time.step_ms",
        "time.contended",
    ),
    measured(
        "memory",
        "MB",
        "most memory that a training step on one sequence held",
        "memory.peak_mb",
    ),
    measured(
        "density",
        SHARE,
        "kept pairs of query and key over all pairs that do not look into the future",
        "density",
    ),
    Entry(
        "budget, k",
        "keys per query",
        "how many keys a query keeps",
        ("mean_k",),
        ("mean_k",),
    ),
    Entry(
        "mass",
        SHARE,
        "share of dense attention's probability on the selected keys",
        ("selection.mean.mass",),
        ("selection.mean.mass", "selection.layers"),
    ),
    Entry(
        "KL",
        "nats",
        "divergence of the indexer's distribution over a query's keys from the attention that it learns: 0 is the same",
        ("selection.mean.kl",),
        ("selection.mean.kl",),
    ),
    Entry(
        "mass, KL, where asked",
        "",
        "the same over the queries that are asked for something, whose loss alone counts",
        ("selection.mean.mass_asked", "selection.mean.kl_asked"),
        ("selection.mean.mass_asked", "selection.mean.kl_asked"),
    ),
    Entry(
        "recall",
        SHARE,
        "share of the keys of highest attention that were selected, over queries that could not keep every key",
        ("selection.mean.recall",),
        ("selection.mean.recall", "selection.layers"),
    ),
    Entry(
        "speed-up, quality kept, efficiency",
        "ratio",
        "relative to the baseline; the formula stands below its table",
        ("speed-up", "quality kept", "efficiency"),
    ),
    Entry(
        "on the front",
        "",
        "no other condition is shown to be as good and cheaper, or better and no dearer",
        ("on the front", "dominated by"),
    ),
)
KINDS = {
    "dense": "control: every query sees every earlier key",
    "oracle": "control: the keys of highest dense attention, at the same budget: the most a selection can reach",
    "random": "control: any keys, at the same budget",
    "window": "control: the nearest keys, at the same budget",
    "sink_window": "control: the first four keys and the nearest, at the same budget",
    "static": "control: a trained score of the key alone, whatever the query asks",
    "replicate": "control: the baseline with other initial indexers; what it differs by is noise",
}
WORDS = (
    Entry(
        "seed",
        "",
        "one repetition with data, initial weights and order of its own, the same for every condition; the "
        "unit of all statistics",
    ),
    Entry(
        "condition",
        "",
        "one choice of indexer, pattern, selector and precision; the baseline is the one that all others are "
        "compared with",
    ),
)


def glossary(analysis: Analysis) -> list[Entry]:
    """The words that this report uses, metrics first."""
    runs = analysis.prepared.runs
    known = {str(name) for name in runs if runs[name].notna().any()}
    metrics = [entry for entry in METRICS if not entry.where or known & set(entry.where)]
    kinds = [Entry(kind, "", KINDS[kind]) for kind in CONTROLS if (runs["kind"] == kind).any()]
    return [*metrics, *kinds, *WORDS]
