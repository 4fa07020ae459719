"""Nothing is unpickled: weights are read as tensors alone."""

import ast
from pathlib import Path

import dsa

SOURCES = sorted(Path(dsa.__file__).parents[1].rglob("*.py"))
PICKLERS = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}


def unpickling(path: Path) -> list[str]:
    """What a module does that may unpickle."""
    tree, found = ast.parse(path.read_text()), []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            found += [name for name in names if name.split(".")[0] in PICKLERS]
        if isinstance(node, ast.Call):
            name, given = ast.unparse(node.func), {part.arg: ast.unparse(part.value) for part in node.keywords}
            reads = name == "torch.load" or "ckpt_path" in given or name.endswith("load_from_checkpoint")
            objects = given.get("allow_pickle", "False") != "False"
            if objects or (reads and given.get("weights_only") != "True") or "read_pickle" in name:
                found.append(ast.unparse(node))
    return found


def test_no_module_unpickles():
    assert len(SOURCES) > 100
    assert {path.name: found for path in SOURCES if (found := unpickling(path))} == {}


def test_this_test_sees_what_would_unpickle(tmp_path):
    bad = tmp_path / "bad.py"
    lines = [
        "import pickle",
        "torch.load(path)",
        "trainer.fit(module, ckpt_path=last)",
        "np.load(a, allow_pickle=True)",
    ]
    bad.write_text("\n".join(lines))
    assert len(unpickling(bad)) == len(lines)
