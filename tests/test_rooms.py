"""The house: which room may import which, and what has one home."""

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest

import dsa

SOURCE = Path(dsa.__file__).parent
ROOMS = [
    {"artifacts"}, {"ops"}, {"indexers", "patterns", "selectors", "precision"}, {"backbones"}, {"judging"},
    {"training"}, {"study"}, {"doors"},
]  # fmt: skip
"""From the ground up: a room imports those below it, and beside it none but itself."""
READERS = {"cli_errors", "config", "guard", "share", "spec", "analysis", "doors", "study"}
"""Where a configuration is still a configuration: the door, the planner and what reads files of finished runs."""
INSIDE = ("inputs", "statistics", "judgement", "output")
"""The rooms of the analysis: each may import those before it, itself and what lies beside."""
BESIDE = ("dsa.artifacts", "dsa.checks", "dsa.config", "dsa.kinds", "dsa.share")


def modules(folder: Path = SOURCE) -> list[Path]:
    return sorted(folder.rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


@functools.cache
def imported(path: Path) -> frozenset[str]:
    """Every module that a file imports, wherever in it."""
    out = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            out |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            out |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(out)


def rooms_imported(path: Path) -> set[str]:
    """First names below dsa of what a file imports."""
    return {name.split(".")[1] for name in imported(path) if name.startswith("dsa.")}


@pytest.mark.parametrize("level", range(len(ROOMS)))
def test_arrows_between_rooms_point_down(level):
    above = set().union(*ROOMS[level:], {"bench", "inspection", "budget", "attachment", "analysis"})
    if level >= ROOMS.index({"study"}):
        above -= {"analysis", "budget"}  # a study is analysed when it ends
    for path in modules():
        if (room := room_of(path)) in ROOMS[level]:
            wrong = rooms_imported(path) & above - {room}
            assert not wrong, f"{path.relative_to(SOURCE)} imports {', '.join(sorted(wrong))}"


def test_configurations_are_read_at_the_door_alone():
    inside = {
        path.relative_to(SOURCE).as_posix()
        for path in modules()
        if any(name.split(".")[0] in ("omegaconf", "hydra") for name in imported(path)) and room_of(path) not in READERS
    }
    assert inside <= {"judging/provenance.py", "training/run_folder.py"}, "one names versions, the other writes a file"


def test_one_file_is_replaced_by_another_in_the_artifacts_alone():
    homes = {room_of(path) for path in modules() if "os.replace(" in path.read_text()}
    assert homes == {"artifacts"}


def test_a_measured_training_step_is_the_one_of_training():
    """The bench of a cohort times its losses apart from any training, and goes backward itself."""
    homes = {path.relative_to(SOURCE).as_posix() for path in modules() if ".backward()" in path.read_text()}
    assert homes == {"training/step.py", "training/assemble.py", "bench/cohort.py"}


@pytest.mark.parametrize("room", INSIDE)
def test_a_room_imports_nothing_from_above_and_nothing_beside_the_analysis(room):
    allowed = tuple(f"dsa.analysis.{name}" for name in INSIDE[: INSIDE.index(room) + 1])
    for path in modules(SOURCE / "analysis" / room):
        own = {name for name in imported(path) if name.split(".")[0] == "dsa"}
        wrong = {name for name in own if not name.startswith(allowed) and not name.startswith(BESIDE)}
        assert not wrong, f"{path.relative_to(SOURCE)} imports {', '.join(sorted(wrong))}"


def test_every_file_of_the_analysis_has_a_room():
    outside = {path.name for path in (SOURCE / "analysis").glob("*.py")}
    assert outside == {"__init__.py", "__main__.py"}


def test_nothing_in_the_library_imports_the_findings():
    for path in modules():
        assert not {name for name in imported(path) if name.split(".")[0] in ("paper", "findings")}, path


@pytest.mark.slow
def test_the_whole_analysis_imports_neither_torch_nor_the_study():
    names = [str(path.relative_to(SOURCE.parent).with_suffix("")) for path in modules(SOURCE / "analysis")]
    lines = [f"import {name.replace('/', '.').removesuffix('.__init__')}" for name in names]
    code = "\n".join(
        [*lines, "import sys", "print([m for m in sys.modules if m == 'torch' or m.startswith('dsa.study')])"]
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.stdout.strip() == "[]", done.stderr
