"""What a study's seeds can show, before any of them is run."""

from dsa.analysis.statistics.power import enough, seeds_for_no_loss, seeds_needed, smallest_p, visible_effect
from dsa.study.question import Study


def plural(count: int, one: str) -> str:
    """A number of things, as "1 seed" and "2 seeds"."""
    return f"{count} {one}{'' if count == 1 else 's'}"


def check_seeds(study: Study) -> None:
    """Refuse a number of seeds with which nothing could be significant, no comparison at a length and no claim.

    Raises:
        ValueError: unless the study says that it is exploratory.
    """
    comparisons = min(study.comparisons, study.decided)
    if study.exploratory or study.of_turns or enough(len(study.seed), comparisons):
        return
    what = "contrast" if comparisons < study.comparisons else "comparison"  # of no other claim are there fewer
    least = smallest_p(len(study.seed))
    raise ValueError(
        f"seed: with {plural(len(study.seed), 'seed')} and {plural(comparisons, what)} no result could be "
        f"significant: the smallest p is {least:.4f}, corrected {least * comparisons:.3f}. "
        f"Give {seeds_needed(comparisons)} seeds, or exploratory=true to look without a claim."
    )


def outlook(study: Study) -> str:
    """What effect the study's seeds can see after the correction that its claim asks for."""
    seeds = len(study.seed)
    if study.of_turns:
        return "its claim rests on the turns in which conditions are timed after training, whatever the seeds"
    if seeds < 2:
        return "1 seed: differences cannot be told from chance"
    told = f"{seeds} seeds, {plural(study.comparisons, 'comparison')} a length"
    if not enough(seeds, min(study.comparisons, study.decided)):
        return f"{told}: too few to show anything, exploratory"
    if study.decided != study.comparisons:
        told += f", {study.decided} over all lengths by which its claim is decided"
    if not enough(seeds, study.decided):
        return f"{told}: too few for that claim, which takes {seeds_needed(study.decided)}"
    effect = visible_effect(seeds, study.decided)
    claim = ", exploratory: no claim" if study.exploratory else ""
    return (
        f"{told}: an effect of {effect:.2f} standard deviations "
        f"of the paired difference is seen with 80 % power after correction; that nothing is lost can be shown "
        f"{no_loss_from(seeds, study.comparisons)}{claim}"
    )


def no_loss_from(seeds: int, comparisons: int) -> str:
    """Whether so many seeds can show that nothing is lost, or how many can."""
    least = seeds_for_no_loss(comparisons)
    return "too" if seeds >= least else f"from {least} seeds on"
