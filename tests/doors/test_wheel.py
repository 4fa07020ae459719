"""An installed wheel has all that a checkout has: code, kernels, configurations, the sweeper and the report's files."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLACES = {ROOT / "src" / "dsa": "dsa", ROOT / "src" / "hydra_plugins": "hydra_plugins", ROOT / "conf": "dsa/conf"}


@pytest.mark.slow
def test_a_wheel_holds_every_file_of_the_tree(tmp_path):
    pytest.importorskip("hatchling", reason="hatchling is not installed")
    build = ["-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([sys.executable, *build, "--wheel-dir", str(tmp_path), str(ROOT)], check=True, timeout=300)
    (wheel,) = tmp_path.glob("dsa-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = {name: archive.read(name) for name in archive.namelist() if ".dist-info/" not in name}
        (entries,) = [archive.read(name) for name in archive.namelist() if name.endswith("entry_points.txt")]
    files = {
        f"{place}/{path.relative_to(folder).as_posix()}": path
        for folder, place in PLACES.items()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert held.keys() == files.keys()
    assert all(held[name] == path.read_bytes() for name, path in files.items())
    kinds = {name.rpartition(".")[2] for name in held}
    assert kinds >= {"py", "cpp", "h", "yaml", "html", "css", "js", "json", "typed"}
    assert b"dsa = dsa.doors.command:main" in entries
