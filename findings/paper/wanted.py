"""What was to be run, so that what was cut can be said."""

from dataclasses import dataclass

from dsa.analysis.output.report.words import listed
from paper.source import Study


@dataclass(frozen=True)
class Wanted:
    """A study that these findings were planned to rest on."""

    name: str
    what: str
    lengths: tuple[int, ...]


WANTED = (
    Wanted("optimal_indexer_config", "20 indexers on the recall task with decoys", (64, 128, 256, 512)),
    Wanted("attention_pattern_analysis", "16 patterns, recall task with decoys", (64, 128, 256, 512)),
    Wanted("k_value_optimization", "16 budgets, recall task with decoys", (64, 128, 256, 512)),
    Wanted(
        "quantization_effectiveness", "15 number formats on 3 indexers, recall task with decoys", (64, 128, 256, 512)
    ),
    Wanted("optimization_combinations", "20 combinations, recall task with decoys", (64, 128, 256, 512)),
    Wanted("baseline_vs_optimized_text", "h4d64 against three small indexers, on text", (512, 1024)),
    Wanted("pretrained", "8 indexers on SmolLM2-135M", (512, 1024)),
    Wanted("noise_control", "small indexers on random tokens", (64, 128)),
)


def part_at(name: str, length: int) -> str:
    """The name of a study of some of the conditions at one more length."""
    return f"{name}_{length}"


def absent(studies: dict[str, Study]) -> list[str]:
    """A sentence for every study or length that was planned and has no finished run, and for every incomplete study."""
    out = []
    for wanted in WANTED:
        lacking = [n for n in wanted.lengths if n not in lengths_of(studies.get(wanted.name))]
        parts = {n: studies[part_at(wanted.name, n)] for n in lacking if part_at(wanted.name, n) in studies}
        out += [
            f"{wanted.name} at {n}: as {part.name}{share(part, studies.get(wanted.name))}." for n, part in parts.items()
        ]
        lacking = [n for n in lacking if n not in parts]
        if len(lacking) == len(wanted.lengths):
            out.append(f"{wanted.name} ({wanted.what}): not run.")
        elif lacking:
            out.append(f"{wanted.name} at {listed(lacking)}: not run.")
    for name, study in studies.items():
        gaps = study.analysis.prepared.gaps
        for state in ("missing", "failed", "not applicable"):
            count = sum(gap.state == state for gap in gaps)
            if count:
                out.append(f"{name}: {count} of {len(gaps) + len(study.analysis.prepared.runs)} runs {state}.")
    return out


def lengths_of(study: Study | None) -> list[int]:
    """Those that a study has runs of."""
    return [] if study is None else study.analysis.prepared.lengths


def share(part: Study, whole: Study | None) -> str:
    """Which of a study's conditions a part of it has, if not all."""
    mine = part.analysis.prepared.meta.conditions
    if whole is None or set(mine) >= set(whole.analysis.prepared.meta.conditions):
        return ""
    return f", {listed(list(mine))} alone"
