"""How a sweep ended."""

from dataclasses import dataclass, field

from dsa.study.planned import PlannedRun


@dataclass
class Outcome:
    """What became of a study's runs.

    Args:
        failed: with category and reason.
        launcher_error: what a launcher said when it gave up on a batch.
    """

    done: list[PlannedRun] = field(default_factory=list)
    failed: list[tuple[PlannedRun, str, str]] = field(default_factory=list)
    missing: list[PlannedRun] = field(default_factory=list)
    launcher_error: str | None = None

    @property
    def status(self) -> int:
        """Exit status: 0 if every run that applies is done, else 1."""
        return 0 if not self.failed and not self.missing else 1
