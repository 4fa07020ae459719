"""The notebooks run from top to bottom, and what is stored in them is what they say today."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from dsa.pretrained.fetch import place_of

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
VARIES = "varies"  # the tag of cells whose numbers are another machine's: nothing of them is stored
FEW = 'spec = compose([*(o for o in overrides if "steps" not in o), "steps=12", f"output_dir={tempfile.mkdtemp()}"])\n'
FETCHED, OWN = 'place_of("smollm2").is_file()', "your_own_model"
"""Where that notebook asks whether SmolLM2 is there: what is stored in it is what it says of its tiny model."""
ASKED = {
    '"data.eval_batches=2"': '"data.eval_batches=1", "data.eval_batch_size=1"',
    "([16], 10)": "([16], 2)",
    '("h1d8", "h2d32", "h4d64")': '("h2d32",)',
    "range(80)": "range(1)",
}
"""What that notebook asks SmolLM2, and how much of it is enough to see that it can. Its tiny model need not learn."""


def said(cell):
    """What a cell printed, and the text of its results, pictures by their kind and size. What libraries warn of is not
    the notebook's. What is printed comes in as many pieces as the kernel happens to send it in.
    """
    printed = "".join(output["text"] for output in cell.outputs if output.get("name") == "stdout")
    results = [output["data"].get("text/plain", "") for output in cell.outputs if "data" in output]
    return [text for text in (printed, *results) if text]


def execute(notebook, path):
    """Run it from top to bottom: it draws, and nothing fails."""
    NotebookClient(notebook, timeout=400, resources={"metadata": {"path": str(path.parent)}}).execute()
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    produced = [output for cell in cells for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in produced)
    assert not any(output.output_type == "error" for output in produced)


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_notebook_runs_draws_and_says_what_is_stored_in_it(path, outputs):
    stored = nbformat.read(path, as_version=4)
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if "train(spec)" in cell.source:
            cell.source = FEW + cell.source
        cell.source = cell.source.replace(FETCHED, "False")
    execute(notebook, path)
    compared = 0
    for now, then in zip(notebook.cells, stored.cells, strict=True):
        if now.cell_type == "code":
            varies = VARIES in then.metadata.get("tags", [])
            assert said(then) == ([] if varies else said(now))
            compared += bool(said(then))
    assert compared >= 2


@pytest.mark.slow
@pytest.mark.skipif(not place_of("smollm2").is_file(), reason="SmolLM2 is not in the cache: dsa fetch smollm2")
def test_the_notebook_asks_smollm2_where_it_was_fetched():
    path = next(path for path in NOTEBOOKS if path.stem == OWN)
    notebook = nbformat.read(path, as_version=4)
    assert any(FETCHED in cell.source for cell in notebook.cells)
    for asked, enough in ASKED.items():
        (cell,) = (cell for cell in notebook.cells if asked in cell.source)
        cell.source = cell.source.replace(asked, enough)
    execute(notebook, path)
    printed = " ".join(text for cell in notebook.cells if cell.cell_type == "code" for text in said(cell))
    assert "LlamaForCausalLM, 30 layers routed" in printed and "the same logits: True" in printed
