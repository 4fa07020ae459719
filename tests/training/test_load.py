"""What cannot be loaded is told with its reason."""

import pytest

from dsa import load_run
from dsa.artifacts.results import RunResult


def test_a_failed_run_is_refused_with_the_reason_that_its_result_holds(tmp_path):
    names = dict.fromkeys(("run_id", "study", "model", "data", "recipe"), "x")
    error = {"category": "nan", "reason": "the loss diverged at step 3."}
    RunResult(**names, status="failed", condition={}, seq_len=64, seed=0, error=error).write(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"status failed \(the loss diverged at step 3\); give the folder of a"):
        load_run(tmp_path)
