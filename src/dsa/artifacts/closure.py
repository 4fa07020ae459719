"""Which source an artifact ran through: what a module imports, followed by reading, and nothing that stands beside it.

A package's `__init__` is seen through: `from dsa.patterns import Causal` leads to the file of Causal alone, so that a
new pattern changes the code of no result, and a changed one that of its own results alone.
"""

import ast
import functools
import hashlib
import importlib.util
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
SHOWS = (
    "dsa.training.log", "dsa.training.loggers", "dsa.training.maps", "dsa.training.console", "dsa.bench",
    "dsa.cli_errors",
)  # fmt: skip
"""What only records or shows: it is not followed, since no number comes from it."""


INSTALLED = ("torch", "pytorch_lightning")
"""Packages whose classes a configuration may name and whose versions the provenance holds."""


@functools.cache
def fingerprint(roots: tuple[str, ...]) -> str:
    """Hash of all source files that the roots lead to, as a process first finds them.

    Args:
        roots: modules (`dsa.training.base`), or classes in them (`dsa.patterns.Causal`, `mylab.Mine`).
    """
    content = hashlib.sha256()
    for name, path in sorted(closure(frozenset(roots)).items()):
        content.update(f"{name}\0{file_hash(path)}\0".encode())
    return content.hexdigest()[:12]


@functools.cache
def closure(roots: frozenset[str]) -> dict[str, Path]:
    """Files by module name, kernels of the ops by their own."""
    found: dict[str, Path] = {}
    todo = [home(root) for root in sorted(roots) if not foreign(root)]
    while todo:
        module = todo.pop()
        if module is None or module in found or module.startswith(SHOWS):
            continue
        path = source(module)
        if path is None:
            continue
        found[module] = path
        todo += imports(module)
    if "dsa.ops.native" in found:
        kernels = sorted(path for path in (PACKAGE / "ops" / "kernels").iterdir() if path.suffix in (".cpp", ".h"))
        found |= {f"kernels/{path.name}": path for path in kernels}
    return found


def foreign(name: str, importer: str = "") -> bool:
    """Whether a module is neither of this package nor of the importer's: its version stands in the provenance."""
    top = name.split(".")[0]
    return top not in ("dsa", importer.split(".")[0]) and (importer != "" or top in INSTALLED)


@functools.cache
def file_hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@functools.cache
def source(module: str) -> Path | None:
    """The file of a module, found without importing anything; None if it has none that could be read."""
    top, *rest = module.split(".")
    for place in places(top):
        path = place.joinpath(*rest)
        for candidate in (path / "__init__.py", path.with_suffix(".py")):
            if candidate.is_file():
                return candidate
    return None


@functools.cache
def places(top: str) -> tuple[Path, ...]:
    """Where a top-level package lies, or the module itself without its ending."""
    found = importlib.util.find_spec(top)
    if found is None:
        return ()
    if found.submodule_search_locations is not None:
        return tuple(Path(place) for place in found.submodule_search_locations)
    return (Path(found.origin).with_suffix(""),) if found.origin and found.origin.endswith(".py") else ()


def home(name: str) -> str | None:
    """The module in which a dotted name is defined: a module's own name, or where the class behind it comes from."""
    if source(name) is not None:
        return name
    module, _, attribute = name.rpartition(".")
    return defined_in(module, attribute) if module else None


def defined_in(module: str, name: str) -> str | None:
    """The module that a name in a module's namespace comes from: itself, or one that its imports lead to."""
    path = source(module)
    if path is None:
        return None
    for where, names in from_imports(module):
        if name in names and not foreign(where, module):
            inner = f"{where}.{names[name]}"
            return inner if source(inner) is not None else defined_in(where, names[name])
    return module


@functools.cache
def imports(module: str) -> tuple[str, ...]:
    """Modules that a module imports, each where it is defined."""
    out = [home(name) for name in plain_imports(module) if not foreign(name, module)]
    for where, names in from_imports(module):
        if foreign(where, module):
            continue
        for original in names.values():
            inner = f"{where}.{original}"
            out.append(inner if source(inner) is not None else defined_in(where, original))
    return tuple(dict.fromkeys(name for name in out if name is not None))


@functools.cache
def tree(module: str) -> ast.Module:
    path = source(module)
    assert path is not None
    return ast.parse(path.read_text(encoding="utf-8"))


def plain_imports(module: str) -> list[str]:
    return [alias.name for node in ast.walk(tree(module)) if isinstance(node, ast.Import) for alias in node.names]


@functools.cache
def from_imports(module: str) -> tuple[tuple[str, dict[str, str]], ...]:
    """Each `from x import y as z` of a module: x in full, and y by z."""
    path = source(module)
    package = module if path is not None and path.name == "__init__.py" else module.rpartition(".")[0]
    out = []
    for node in ast.walk(tree(module)):
        if not isinstance(node, ast.ImportFrom):
            continue
        parts = package.split(".")
        before = parts[: len(parts) - node.level + 1] if node.level else []
        where = ".".join([*before, *([node.module] if node.module else [])])
        out.append((where, {alias.asname or alias.name: alias.name for alias in node.names}))
    return tuple(out)
