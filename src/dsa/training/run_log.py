"""run.log: what a run says, kept in its folder."""

import logging
import sys
from pathlib import Path

GIVEN_UP: set[str] = set()
"""Files of which it was said that they cannot be written."""


class RunLogFile(logging.FileHandler):
    """Appends to run.log; where that cannot be written it is said once, and the run goes on without it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, encoding="utf-8")
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))

    def handleError(self, record: logging.LogRecord) -> None:
        """Called while the error of writing a record is handled."""
        error = sys.exc_info()[1]
        if isinstance(error, OSError):
            self.give_up(error)
        else:
            super().handleError(record)

    def close(self) -> None:
        """What could not be written before is tried once more here."""
        try:
            super().close()
        except OSError as error:
            self.give_up(error)

    def give_up(self, error: OSError) -> None:
        if self.baseFilename not in GIVEN_UP:
            print(f"warning: {self.baseFilename} cannot be written ({error}); it lacks lines.", file=sys.stderr)
        GIVEN_UP.add(self.baseFilename)
