"""The house: which room may import which, and what has one home."""

import ast
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


def modules() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Every module that a file imports, wherever in it."""
    out = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            out |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            out |= {f"{node.module}.{alias.name}" for alias in node.names}
    return out


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
