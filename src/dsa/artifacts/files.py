"""Names of the files that runs and studies leave in their folders."""

RESULT = "result.json"
CONFIG = "config.yaml"
METRICS = "metrics.csv"
STUDY = "study.json"
VERDICT = "verdict.json"
TIMING = "timing.json"
