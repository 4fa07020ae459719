"""The house of the analysis: what each room may import."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import dsa

SOURCE = Path(dsa.__file__).parent
ROOMS = ("inputs", "statistics", "judgement", "output")  # each may import those before it, and itself
BESIDE = ("dsa.artifacts", "dsa.checks", "dsa.config", "dsa.share")


def modules(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Every module that a file imports, wherever in it."""
    out = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            out |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            out.add(str(node.module))
    return out


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_nothing_from_above_and_nothing_beside_the_analysis(room):
    allowed = tuple(f"dsa.analysis.{name}" for name in ROOMS[: ROOMS.index(room) + 1])
    for path in modules(SOURCE / "analysis" / room):
        own = {name for name in imported(path) if name.split(".")[0] == "dsa"}
        wrong = {name for name in own if not name.startswith(allowed) and not name.startswith(BESIDE)}
        assert not wrong, f"{path.relative_to(SOURCE)} imports {', '.join(sorted(wrong))}"


def test_every_file_of_the_analysis_has_a_room():
    outside = {path.name for path in (SOURCE / "analysis").glob("*.py")}
    assert outside == {"__init__.py", "__main__.py"}


def test_nothing_in_the_library_imports_the_findings():
    for path in modules(SOURCE):
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
