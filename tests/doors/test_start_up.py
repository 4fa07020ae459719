"""What a command imports: nothing that takes seconds and that it does not need."""

import subprocess
import sys
from pathlib import Path

import pytest
from study.studies import TINY, plans_of

from dsa.study.drive import Drive
from dsa.study.options import Options

ROOT = Path(__file__).resolve().parents[2]
TELL = """
import runpy, sys
program, *sys.argv = {line!r}
try:
    runpy.run_module(program, run_name="__main__", alter_sys=True)
finally:
    sys.stdout.flush()
    print("imported:", *sorted(set({heavy!r}) & set(sys.modules)))
"""
TRAINING = ("pytorch_lightning", "torchmetrics", "transformers", "wandb", "datasets")
ANALYSIS = ("matplotlib", "pandas", "scipy.stats", "statsmodels", "jinja2", "pyarrow")
HEAVY = ("torch", "numpy", "scipy", *TRAINING, *ANALYSIS)


def heavy_imports(*line: str) -> set[str]:
    """Which of the heavy packages a command imports; the first word is its module, the second its own name."""
    code = TELL.format(line=[line[0], *line], heavy=HEAVY)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, cwd=ROOT)
    last = done.stdout.splitlines()[-1]
    assert last.startswith("imported:") and "Traceback" not in done.stderr, done.stderr
    return set(last.split()[1:])


@pytest.mark.slow
@pytest.mark.parametrize(
    "line",
    [
        ["train", "--help"], ["sweep", "--help"], ["dsa", "--help"], ["dsa", "train", "--help"],
        ["dsa", "report", "--help"], ["dsa", "report", "selection", "--help"], ["dsa", "status", "--help"],
        ["dsa", "study", "--help"], ["dsa", "compare", "--help"], ["dsa", "bench", "attention", "--help"],
        ["train", "--cfg", "job"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_help_imports_nothing_heavy(line):
    modules = {"train": "train", "sweep": "sweep", "dsa": "dsa.doors.command"}
    assert heavy_imports(modules[line[0]], *line[1:]) == set()


@pytest.fixture
def folder(outputs):
    """The folder of a planned study."""
    plans = plans_of("name=tiny", "indexer=h1d8,h2d8", *TINY, f"output_dir={outputs}", judge="swap")
    Drive(plans, outputs, Options(), lambda jobs, files: []).begin()
    return outputs / "tiny"


@pytest.mark.slow
def test_status_and_compare_import_nothing_heavy(folder):
    (folder / "a").mkdir()
    (folder / "a" / "config.yaml").write_text("seed: 0")
    assert heavy_imports("dsa.doors.command", "status", str(folder)) == set()
    assert heavy_imports("dsa.doors.command", "compare", str(folder)) == set()


@pytest.mark.slow
def test_a_report_imports_nothing_of_training(folder):
    found = heavy_imports("dsa.doors.command", "report", str(folder))
    assert "pandas" in found and not found & {"torch", "statsmodels", *TRAINING}


@pytest.mark.slow
def test_a_plan_imports_nothing_of_training_and_of_the_analysis(outputs):
    line = ["sweep", "study=quick", "dry_run=true", *TINY, f"output_dir={outputs}"]
    assert heavy_imports(*line) <= {"torch", "numpy", "scipy"}
