"""results.csv in a spreadsheet: nothing in it runs."""

import pandas as pd
import pytest

from dsa.analysis.output.files import flat
from dsa.analysis.output.spreadsheet import for_spreadsheets


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", '=HYPERLINK("x")'])
def test_text_that_begins_like_a_formula_is_marked_as_text(text):
    table = pd.DataFrame({"label": [text, "h1d8", None]})
    assert list(for_spreadsheets(flat(table))["label"])[:2] == [f"'{text}", "h1d8"]


def test_numbers_stay_numbers(tmp_path):
    table = pd.DataFrame(
        {
            "difference": [-0.5, None],
            "seed": [-1, 2],
            "worse": [True, None],
            "layers": [[-1], None],
            "label": ["a", "="],
        }
    )
    path = tmp_path / "results.csv"
    for_spreadsheets(flat(table)).to_csv(path, index=False)
    assert path.read_text() == "difference,seed,worse,layers,label\n-0.5,-1,True,[-1],a\n,2,,,'=\n"
