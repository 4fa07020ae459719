"""The notebooks run from top to bottom."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_notebook_runs_and_draws(path, outputs):
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=400, resources={"metadata": {"path": str(path.parent)}}).execute()
    produced = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in produced)
    assert not any(output.output_type == "error" for output in produced)
