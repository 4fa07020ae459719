"""What a study of noise leaves: its tables hold no verdict but "cannot discriminate", and nothing of an earlier one."""

import csv
import itertools
import re
from dataclasses import replace
from pathlib import Path

import pytest
from analysis.made_up import made_up

from dsa.analysis.judgement.analysis import analyse
from dsa.analysis.output.figures import seeds
from dsa.analysis.output.figures.every import charts, draw
from dsa.analysis.output.files import record
from dsa.analysis.output.report.page import page
from paper.source import Study
from paper.study import write_study
from paper.times import Times

pytestmark = pytest.mark.slow

VERDICT = re.compile(
    r"\b(better|worse|equivalent|inconclusive|supported|differs?|recommended|shown|undecided|lossless|loses?|fails?|"
    r"failed|yes|no)\b"
)
TWO_LENGTHS = (64, 128)


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """Few bootstrap draws."""
    monkeypatch.setattr("dsa.analysis.statistics.intervals.RESAMPLES", 99)


def study(noise: bool) -> Study:
    """A study whose conditions differ from seed to seed by more than the margin; of noise, or of something."""
    true = dict.fromkeys(("dense", "oracle", "window", "random"), 2.0)
    controls = true if noise else true | {"dense": 1.0, "oracle": 1.0}
    losses = {"a": 2.0, "b": 2.02, "c": 1.99} if noise else {"a": 1.2, "b": 1.3, "c": 1.2}
    plan = {"contrasts": {"b or c": {"plus": ["b"], "minus": ["c"]}}, "hypothesis": {"claim": "cannot_discriminate"}}
    prepared = made_up(losses, TWO_LENGTHS, seeds=20, noise=0.02, controls=controls, **plan)
    if noise:
        prepared = replace(prepared, runs=prepared.runs.assign(unigram_loss=2.0))
    return Study(analyse(prepared), Times(prepared), ())


def cells(folder: Path) -> list[str]:
    """Every cell of the tables in a folder, heads apart: of each CSV, and of the page."""
    out = [cell for path in folder.glob("*.csv") for row in list(csv.reader(path.open()))[1:] for cell in row]
    lines = (folder / "README.md").read_text().splitlines()
    rows = [line for above, line in itertools.pairwise(lines) if above.startswith("|") and line[0:1] == "|"]
    return out + [cell.strip() for row in rows for cell in row.split("|")]


def wrong(found: list[str]) -> list[str]:
    """Cells that hold a verdict; that nothing may be ranked, and so nothing be recommended, is none."""
    return [cell for cell in found if VERDICT.search(cell) and not cell.startswith("nothing may be ranked here")]


def test_tables_of_noise_hold_no_verdict_but_that_nothing_can_be_told_apart(tmp_path):
    noise = study(noise=True)
    write_study(noise, tmp_path)
    assert "cannot discriminate" in cells(tmp_path)
    assert wrong(cells(tmp_path)) == []
    html = page(noise.analysis, charts(noise.analysis))
    inside = [re.sub("<[^>]+>", "", cell) for cell in re.findall(r"<td[^>]*>(.*?)</td>", html, re.DOTALL)]
    assert "cannot discriminate" in inside and wrong(inside) == []
    heads = [re.sub("<[^>]+>", "", cell) for cell in re.findall(r"<th[^>]*>(.*?)</th>", html, re.DOTALL)]
    assert not any(re.search(r"\b(better|worse|equivalent|inconclusive)\b", head) for head in heads)
    beyond = re.findall(r'<td data-label="seeds beyond margin"[^>]*>(.*?)</td>', html)
    assert beyond and set(beyond) == {"–"}, "where nothing may be ranked no seed fails"
    rows = record(noise.analysis)["efficiency"]["rows"]
    assert rows and {(row["quality_kept"], row["efficiency"]) for row in rows} == {(None, None)}


def test_pictures_of_noise_show_no_failure(tmp_path):
    write_study(study(noise=True), tmp_path)
    for name in ("seeds", "failures", "success", "contrasts", "regret", "recovered"):
        assert not (tmp_path / f"{name}.png").exists(), name


def test_the_axis_of_the_seeds_is_named_in_plain_words_with_its_unit():
    figure = draw(seeds.chart(study(noise=False).analysis))
    named = {axes.get_xlabel() for axes in figure.axes}
    assert named == {"loss less the oracle's [nats], log scale"}
    assert seeds.chart(study(noise=True).analysis).panels == ()


def test_what_an_earlier_writing_left_and_is_no_longer_so_is_gone(tmp_path):
    write_study(study(noise=False), tmp_path)
    names = {f"{name}.csv" for name in ("best", "contrasts", "regret")}
    names |= {f"{name}.png" for name in ("seeds", "failures", "success", "contrasts", "regret", "recovered")}
    assert names <= {path.name for path in tmp_path.iterdir()}
    (tmp_path / "by_hand.png").touch()
    write_study(study(noise=True), tmp_path)
    assert not names & {path.name for path in tmp_path.iterdir()}
    assert (tmp_path / "by_hand.png").exists()
