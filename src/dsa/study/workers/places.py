"""Where jobs lie below an output folder, and what they leave there."""

from dsa.artifacts.store import PLACES

JOBS = ".jobs"
STOP, LOG = ".stopped", "job.log"
COHORTS = f"{PLACES['indexers']}/.cohorts"
