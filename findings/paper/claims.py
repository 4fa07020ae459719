"""What the original experiment reported, and who is asked about it here."""

from dataclasses import dataclass, replace

from paper.evaluate import Evaluated, Evaluation, best_at, fewer_parameters, hypothesis_of, less_memory, loss_within
from paper.evaluate_times import faster, gains_change
from paper.evidence import Studies
from paper.markdown import table
from paper.source import EARLY

SPEED_135, SPEED_150 = 1 - 1 / 1.35, 1 - 1 / 1.5  # a speed of 135 % takes 26 % less time


@dataclass(frozen=True)
class Claim:
    """A number or conclusion of the original experiment."""

    text: str
    evaluate: Evaluation


H4D64, H2D32 = "h4d64", "h2d32"
INDEXERS = "optimal_indexer_config"
CLAIMS = (
    Claim("h4d64 to h2d32: 69.7 % fewer indexer parameters", fewer_parameters(H2D32, H4D64, 0.697)),
    Claim("h2d32: 20 % faster training than h4d64 at 64", faster("step_ms", H2D32, H4D64, 0.20, 64)),
    Claim("h2d32: 4 % faster training than h4d64 at 128", faster("step_ms", H2D32, H4D64, 0.04, 128)),
    Claim("h2d32: inference 10–25 % faster than h4d64", faster("infer_ms", H2D32, H4D64, 0.10)),
    Claim("h2d32: training memory 5–10 % lower than h4d64", less_memory(H2D32, H4D64, 0.05)),
    Claim("h2d32: loss within 0.01 % of h4d64's", loss_within(H2D32, H4D64, 0.0001)),
    Claim("h1d16: 135 % of h4d64's speed, in training", faster("step_ms", "h1d16", H4D64, SPEED_135)),
    Claim("h1d16: 135 % of h4d64's speed, in inference", faster("infer_ms", "h1d16", H4D64, SPEED_135)),
    Claim("ultra light: 150 % of h4d64's speed, in training", faster("step_ms", "ultra_light", H4D64, SPEED_150)),
    Claim("ultra light: 150 % of h4d64's speed, in inference", faster("infer_ms", "ultra_light", H4D64, SPEED_150)),
    Claim("best at 64: h3d64", best_at("h3d64", 64, INDEXERS)),
    Claim("best at 128: h4d64", best_at("h4d64", 128, INDEXERS)),
    Claim("best at 256: h3d32", best_at("h3d32", 256, INDEXERS)),
    Claim("best at 512: h1d16", best_at("h1d16", 512, INDEXERS)),
    Claim("best at 1024: h2d8", best_at("h2d8", 1024, INDEXERS, hours=22)),
    Claim("best at 2048: h2d8", best_at("h2d8", 2048, INDEXERS, hours=70)),
    Claim("local + global is the best trade of speed and quality", hypothesis_of("attention_pattern_analysis")),
    Claim("the gains of h2d32 shrink with length, in training", gains_change("step_ms", H2D32, H4D64, -1)),
    Claim("the gains of h2d32 grow with length, in training", gains_change("step_ms", H2D32, H4D64, 1)),
    Claim("the gains of h2d32 shrink with length, in inference", gains_change("infer_ms", H2D32, H4D64, -1)),
    Claim("the gains of h2d32 grow with length, in inference", gains_change("infer_ms", H2D32, H4D64, 1)),
)


def told_once(found: list[Evaluated]) -> list[Evaluated]:
    """What nothing can be said of for one reason, in one row, with the reason less what is said of each place."""
    out: dict[object, list[Evaluated]] = {}
    for place, one in enumerate(found):
        out.setdefault(one.why.partition(" (")[0] if one.barred else place, []).append(one)
    return [
        same[0]
        if len(same) == 1
        else replace(same[0], where="; ".join(one.where for one in same), value="–", why=str(why))
        for why, same in out.items()
    ]


def claims_page(studies: Studies) -> str:
    """claims.md."""
    rows = []
    for claim in CLAIMS:
        for i, evaluated in enumerate(told_once(claim.evaluate(studies))):
            rows.append(
                (claim.text if i == 0 else "", evaluated.where, evaluated.value, evaluated.verdict, evaluated.why)
            )
    return (
        "# Claims of the original experiment\n\n"
        "Each number or conclusion that the original experiment reported, beside what was measured here. “So "
        "much faster” is read as so much less time. A claim of a "
        "gain of at least g (a range: its lower end) is *supported* where the whole 95 % interval lies at g or above, "
        "*not supported* where all of it lies below, else *inconclusive*. Intervals: over seeds (BCa bootstrap) for "
        "loss and memory, from the least to the greatest turn for times taken alone. Times decide nothing unless "
        "they were taken alone, in at least five fresh processes. Memory is what torch holds at "
        "once for one training step over one row. What was not run is *not tested*. The studies differ from the "
        f"original in task, model and machine: see [the findings](details.md). A name that ends in `_v01`: {EARLY}\n\n"
        + table(["claim", "where", "measured [95 % interval]", "verdict", "why"], rows)
        + "\n"
    )
