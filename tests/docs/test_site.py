"""The documentation: pages, links, commands and what they name, against the files and the code."""

import ast
import functools
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from conftest import options

from dsa import compose, config
from dsa.config import config_dir
from dsa.doors.command import ADDED, COMMANDS
from dsa.graph import Graph, graph_of

ROOT = Path(__file__).resolve().parents[2]
GUIDE = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES = [*GUIDE, *sorted((ROOT / "findings").rglob("*.md"))]
PLACEHOLDERS = ("NAME", "a", "b")
GROUPS = {path.name for path in config_dir().iterdir() if path.is_dir()}
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
each_guide = pytest.mark.parametrize("page", GUIDE, ids=lambda path: path.relative_to(ROOT).as_posix())


def prose(text: str) -> str:
    """A page without its code blocks."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)


def blocks(page: Path, language: str) -> list[str]:
    """A page's code blocks of a language; commands have none."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)


def commands(page: Path) -> Iterator[list[str]]:
    """The words of each command line on a page, in blocks and in single backticks."""
    lines = [line for block in blocks(page, "") for line in block.replace("\\\n", " ").splitlines()]
    lines += re.findall(r"`((?:python|dsa|make|pip) [^`]+)`", prose(page.read_text()))
    for line in lines:
        if re.match(r"(?:python|dsa|make|pip) ", line):
            yield shlex.split(line, comments=True)


def anchors(page: Path) -> set[str]:
    """What a link may name after `#`, as GitHub makes it of titles."""
    titles = re.findall(r"^#+ (.+)$", prose(page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_every_page_is_in_the_navigation_and_nothing_else():
    def pages(node) -> Iterator[str]:
        if isinstance(node, str):
            yield node
        for inner in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
            yield from pages(inner)

    nav = list(pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    assert {name for name in nav if (ROOT / "docs" / name).exists()} == {p.name for p in (ROOT / "docs").glob("*.md")}
    assert all((ROOT / "docs" / name).exists() or (ROOT / name).exists() for name in nav)
    assert len(set(nav)) == len(nav)


@each_page
def test_relative_links_and_anchors_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page.read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), target
        assert found.is_relative_to(ROOT), target
        assert not anchor or anchor in anchors(found), target


@pytest.mark.slow
@each_guide
def test_every_train_and_sweep_command_composes(page):
    shown = set(re.findall(r"^# \w+/conf/(\w+/\w+)\.yaml$", page.read_text(), re.MULTILINE))
    for words in commands(page):
        if words[0] == "dsa" and words[1] in ("train", "judge", "sweep"):
            door, given = words[1], [*ADDED.get(words[1], []), *words[2:]]
        elif words[0] == "python" and words[1] in ("train.py", "sweep.py"):
            door, given = words[1].removesuffix(".py"), words[2:]
        else:
            continue
        overrides = [word for word in given if "=" in word]
        own = [override for override in overrides if override.replace("=", "/") in shown]
        assert not own or "--config-dir" in given
        composed = [override for override in overrides if override not in own]
        for override in composed:
            group, _, options = override.partition("=")
            for option in options.split(",") if group in GROUPS else ():
                assert option in PLACEHOLDERS or (config_dir() / group / f"{option}.yaml").exists(), override
        single = [re.sub(r"=range\(.*", "=0", re.sub(r"=([^\[(,]+),.*", r"=\1", override)) for override in composed]
        config.compose([one for one in single if "NAME" not in one], "sweep" if door == "sweep" else "train")


@each_guide
def test_every_other_command_names_a_module_command_target_or_extra_that_exists(page):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    targets = set(re.findall(r"^(\w[\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for words in commands(page):
        if words[0] == "make":
            assert {word for word in words[1:] if "=" not in word} <= targets
        if words[0] == "pip":
            for extras in re.findall(r"\.\[([\w,]+)\]", " ".join(words)):
                assert set(extras.split(",")) <= set(project["optional-dependencies"])
        if words[0] == "dsa" and words[1] != "COMMAND":
            assert words[1] in COMMANDS
        if words[0] == "python" and words[1].endswith(".py"):
            assert (ROOT / words[1]).exists()
        if words[:2] == ["python", "-m"] and words[2].startswith("dsa"):
            spec = find_spec(words[2])
            assert spec is not None and spec.origin is not None
            source = "".join(path.read_text() for path in Path(spec.origin).parent.rglob("*.py"))
            if words[2] == "dsa.analysis":
                source += "".join(path.read_text() for path in (ROOT / "src/dsa/inspection").glob("*command.py"))
            for word in words[3:]:
                if word.startswith("--") or (word == words[3] and re.fullmatch("[a-z]+", word)):
                    assert f'"{word}"' in source, words


def test_every_command_stands_in_the_table():
    table = (ROOT / "docs" / "getting_started.md").read_text()
    assert [name for name in COMMANDS if f"| `dsa {name}` |" not in table] == []


@pytest.mark.parametrize("group", ["data", "model", "memory", "recipe", "objective", "optimizer", "trainer", "logger"])
def test_every_option_is_told(group):
    told = (ROOT / "docs" / "configuration.md").read_text()
    assert [name for name in options(group) if f"`{name}`" not in told] == []


@each_guide
def test_every_option_in_the_text_exists(page):
    for code in re.findall(r"`([^`\n]+)`", prose(page.read_text())):
        for group, option in re.findall(r"(?<![\w.])(\w+)=([\w/]+)", code):
            if group in GROUPS and option not in PLACEHOLDERS:
                assert (config_dir() / group / f"{option}.yaml").exists(), code


@each_guide
def test_what_python_on_a_page_imports_is_there(page):
    for block in blocks(page, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] == "dsa":
                module = import_module(str(node.module))
                assert all(hasattr(module, alias.name) for alias in node.names)


def shaping() -> list[list[str]]:
    table = (ROOT / "docs/concepts.md").read_text().split("## What shapes which hash")[1].split("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line[:3] == "| `"]
    assert len(rows) > 10
    return rows


@functools.cache
def graph(*overrides: str) -> Graph:
    return graph_of(compose([*overrides]), "corpus")


@pytest.mark.parametrize("row", shaping(), ids=lambda row: row[0].strip("`"))
def test_what_shapes_which_hash_is_as_the_table_says(row):
    command = ["indexer=h2d32", "pattern=local_global", "dtype=fp32"]
    before, after = (graph(*command, *more) for more in ([], row[0].strip("`").split()))
    for kind, said in zip(("base", "indexers", "joint", "swap"), row[1:], strict=True):
        old, new = getattr(before, kind), getattr(after, kind)
        assert said == ("none" if new is None else "same" if new.hash == old.hash else "new"), kind


def test_version_and_changelog_agree():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[1] == version
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == version


@pytest.mark.slow
def test_the_site_builds_strictly_and_asks_the_network_for_nothing(tmp_path):
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    pages = sorted(tmp_path.rglob("*.html"))
    assert len(pages) > 12
    for page in pages:
        text = page.read_text()
        for tag in re.findall(r"<(?:script|link|img|iframe|source|style)\b[^>]*>", text):
            assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", tag), (page.name, tag)
        assert "mermaid" not in text, "Material would fetch its script"
    for sheet in tmp_path.rglob("*.css"):
        assert not re.search(r"(?:url\(|@import\s+)[\"']?(?:https?:)?//", sheet.read_text()), sheet.name
