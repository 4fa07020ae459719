"""train.py as a program: what Hydra does beside, several runs in one command, two commands at once."""

import pytest
from conftest import QUIET, SMALL

from training.whole_runs import ROOT, RUN, start

pytestmark = pytest.mark.slow


def test_hydra_leaves_no_files_of_its_own(outputs, tmp_path):
    before = set(ROOT.iterdir())
    assert start([*SMALL, *QUIET, "steps=6", "recipe=dense", f"output_dir={outputs}"]).wait() == 0
    assert set(ROOT.iterdir()) - before <= {ROOT / "outputs"}


def test_plain_multirun_still_works(outputs):
    done = start(["-m", "indexer=h1d8,h2d16", *SMALL, *QUIET, "steps=6", f"output_dir={outputs}"])
    text = done.communicate()[0]
    assert done.returncode == 0, text
    assert len(list((outputs / "runs").glob("*/result.json"))) == 2


def test_two_processes_that_start_together_share_one_base(outputs):
    both = [start([*RUN, f"indexer={name}", f"output_dir={outputs}"]) for name in ("h1d8", "h2d16")]
    for process in both:
        text = process.communicate()[0]
        assert process.returncode == 0, text
    assert len(list((outputs / "bases").iterdir())) == 1
    assert len(list((outputs / "joint").glob("dense-*"))) == 1
    assert len(list((outputs / "runs").glob("*/result.json"))) == 2
