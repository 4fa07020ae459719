"""The notebooks run from top to bottom, and what is stored in them is what they say today."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
VARIES = "varies"  # the tag of cells whose numbers are another machine's: nothing of them is stored
FEW = 'spec = compose([*(o for o in overrides if "steps" not in o), "steps=12", f"output_dir={tempfile.mkdtemp()}"])\n'


def said(cell):
    """What a cell printed, and the text of its results, pictures by their kind and size. What libraries warn of is not
    the notebook's. What is printed comes in as many pieces as the kernel happens to send it in.
    """
    printed = "".join(output["text"] for output in cell.outputs if output.get("name") == "stdout")
    results = [output["data"].get("text/plain", "") for output in cell.outputs if "data" in output]
    return [text for text in (printed, *results) if text]


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_notebook_runs_draws_and_says_what_is_stored_in_it(path, outputs):
    stored = nbformat.read(path, as_version=4)
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if "train(spec)" in cell.source:
            cell.source = FEW + cell.source
    NotebookClient(notebook, timeout=400, resources={"metadata": {"path": str(path.parent)}}).execute()
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    produced = [output for cell in cells for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in produced)
    assert not any(output.output_type == "error" for output in produced)
    compared = 0
    for now, then in zip(notebook.cells, stored.cells, strict=True):
        if now.cell_type == "code":
            varies = VARIES in then.metadata.get("tags", [])
            assert said(then) == ([] if varies else said(now))
            compared += bool(said(then))
    assert compared >= 2
