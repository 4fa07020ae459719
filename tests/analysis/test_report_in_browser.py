"""What a browser makes of a report: nothing lies over anything or is loaded from elsewhere, and what a touch does."""

import re
from pathlib import Path

import pytest
from browser import CHROMIUM, Page, with_page
from made_up import made_up
from study_folder import write_study

from dsa.analysis.judgement.analysis import analyse, analyse_folder
from dsa.analysis.output.figures.every import charts
from dsa.analysis.output.report.page import page

pytestmark = pytest.mark.slow

MANY = ["h4d64", *(f"h{heads}d{dim}" for heads in (1, 2, 3) for dim in (16, 32, 64)), "<script>alert(1)</script>"]


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    """The report on eleven conditions at two lengths, one of them with an evil name."""
    if CHROMIUM is None:
        pytest.skip("no chromium, chromium-browser or google-chrome on this machine")
    folder = write_study(tmp_path_factory.mktemp("report") / "made_up", MANY, seeds=3)
    analysis = analyse_folder(folder)
    (folder / "report.html").write_text(page(analysis, charts(analysis)))
    assert (folder / "report.html").stat().st_size < 6_000_000
    return folder / "report.html"


OVERLAPS = """
(() => {
  const box = node => node.getBoundingClientRect(), name = node => node.textContent.trim().slice(0, 40);
  const meet = (a, b) =>
    a.left < b.right - 0.5 && b.left < a.right - 0.5 && a.top < b.bottom - 0.5 && b.top < a.bottom - 0.5;
  const bad = [];
  const check = nodes => nodes.forEach((a, i) => nodes.slice(i + 1).forEach(b => {
    if (box(a).width && box(b).width && meet(box(a), box(b))) bad.push(`${name(a)} | ${name(b)}`);
  }));
  document.querySelectorAll('header, main, section, .panels, .legend').forEach(n => check([...n.children]));
  for (const figure of document.querySelectorAll('.panels svg')) {
    const texts = [...figure.querySelectorAll('text')].filter(name), frame = box(figure);
    check(texts);
    for (const text of texts) {
      const at = box(text);
      if (at.left < frame.left - 1 || at.right > frame.right + 1 || at.bottom > frame.bottom + 1) {
        bad.push(`cut: ${name(text)}`);
      }
    }
  }
  return bad;
})()
"""
SPOT = "[...document.querySelectorAll('[data-chart=pareto_flops] .spot')].find(s => s.ariaLabel.startsWith('h4d64'))"
MIDDLE = f"(b => [b.x + b.width / 2, b.y + b.height / 2])({SPOT}.querySelector('path').getBoundingClientRect())"
TABLE = "document.querySelector('[data-name=comparisons]').parentNode.querySelector('table')"


def later(expression: str) -> str:
    """An expression's value half a second from now."""
    return f"new Promise(done => setTimeout(() => done({expression}), 500))"


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1400, 400])
def test_a_browser_shows_it_without_overlap_or_request(report, tmp_path, width, dark):
    async def look(browser: Page) -> None:
        await browser.open(report, width, dark)
        assert await browser.run("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        assert await browser.run("document.querySelectorAll('.panels svg').length") >= 24
        assert await browser.run(OVERLAPS) == []
        paper = await browser.run("getComputedStyle(document.body).backgroundColor")
        assert (paper == "rgb(255, 255, 255)") != dark
        assert browser.complaints == []
        assert {re.sub(r":.*", "", url) for url in browser.requests} <= {"file", "data"}
        assert len([url for url in browser.requests if url.startswith("file")]) == 1

    with_page(tmp_path / "profile", look)


LONG = "alike, or not alike at all, which takes more words than fit into a line of the names"


@pytest.fixture(scope="module")
def deep(tmp_path_factory) -> Path:
    """The report on models of twelve layers, with differences of all sizes and a planned contrast."""
    if CHROMIUM is None:
        pytest.skip("no chromium, chromium-browser or google-chrome on this machine")
    told = {"selection": {"layers": [{"mass": 0.5 + n / 100, "oracle_mass": 0.9} for n in range(12)]}}
    losses = {"a": 1.0} | {f"b{n}": 1.001 for n in range(3)} | {"c": 1.4, "d": 9.0}
    planned = {LONG: {"plus": ["b0", "b1", "b2"], "minus": ["c"]}}
    made = made_up(
        losses, seeds=4, each=lambda run, result: result | told, contrasts=planned, margin={"val_loss": 0.01}
    )
    analysis = analyse(made)
    path = tmp_path_factory.mktemp("deep") / "report.html"
    path.write_text(page(analysis, charts(analysis)))
    return path


@pytest.mark.parametrize("width", [1400, 400])
def test_a_browser_draws_cells_for_many_layers_bent_axes_and_what_the_sides_of_0_mean(deep, tmp_path, width):
    async def look(browser: Page) -> None:
        await browser.open(deep, width)
        assert await browser.run(OVERLAPS) == []
        of_a_row = "[...document.querySelectorAll('[data-chart=mass] g.row')].map(g => new Set([...g.querySelectorAll("
        of_a_row += "'rect:not(.stripe)')].map(r => r.getAttribute('fill-opacity'))).size)"
        assert set(await browser.run(of_a_row)) == {12}
        words = "[...document.querySelectorAll('[data-chart={}] text')].map(t => t.textContent)"
        differences = await browser.run(words.format("differences"))
        assert any("log scale beyond ±0.03" in text for text in differences)
        assert {"0", "0.1", "1"} <= set(differences)
        sides = await browser.run(words.format("contrasts"))
        assert LONG in " ".join(sides) and not any("…" in text for text in sides), "a long name has several lines"
        assert any(text.startswith("← b{0,1,2}") for text in sides) and any(text.endswith("better →") for text in sides)
        coloured = (
            "new Set([...document.querySelectorAll('[data-chart=seeds] circle')].map(c => c.getAttribute('fill')))"
        )
        assert await browser.run(f"{coloured}.size") == 4, "a colour a seed"
        assert (
            await browser.run("document.querySelectorAll('[data-chart=seeds] g.row:first-of-type circle').length") == 4
        )
        assert await browser.run("document.querySelectorAll('[data-chart=seeds] .guide').length") == 1
        assert browser.complaints == []

    with_page(tmp_path / "profile", look)


def test_hover_pin_copy_and_sort(report, tmp_path):
    async def use(browser: Page) -> None:
        await browser.open(report, 1400)
        await browser.run("document.querySelector('[data-chart=pareto_flops]').scrollIntoView()")
        x, y = await browser.run(MIDDLE)
        assert await browser.run("document.getElementById('tip').hidden")
        await browser.hover(x, y)
        told = await browser.run(
            "document.getElementById('tip').hidden ? '' : document.getElementById('tip').innerText"
        )
        assert all(
            part in told for part in ("h4d64 (baseline)", "loss, after joint training [nats]: 1.", "indexer=h4d64")
        )
        assert re.search(r"1\.\d+ \[1\.\d+, 1\.\d+\]", told), "no interval"
        await browser.click(x, y)
        await browser.hover(5, 5)
        assert await browser.run(later("!document.getElementById('tip').hidden"))
        await browser.run("document.querySelector('#tip .copy').click()")
        assert await browser.run(later("document.querySelector('#tip .copy').textContent")) == "Copied"
        await browser.click(5, 5)
        assert await browser.run("document.getElementById('tip').hidden")

        column = f"[...{TABLE}.tBodies[0].rows].map(row => Number(row.cells[4].dataset.value))"
        press = "querySelector('button').click()"
        await browser.run(f"{TABLE}.tHead.rows[0].cells[4].{press}")
        rising = await browser.run(column)
        await browser.run(f"{TABLE}.tHead.rows[0].cells[4].{press}")
        assert rising == sorted(rising) and rising != sorted(rising, reverse=True)
        assert await browser.run(column) == sorted(rising, reverse=True)
        assert browser.complaints == []

    with_page(tmp_path / "profile", use)


@pytest.mark.parametrize("width", [400])
def test_a_phone_shows_the_numbers_of_the_first_table(report, tmp_path, width):
    async def look(browser: Page) -> None:
        await browser.open(report, width)
        outside = """[...document.querySelectorAll('table.cards td')].filter(cell => {
            const box = cell.getBoundingClientRect();
            return !box.width || box.left < 0 || box.right > document.documentElement.clientWidth;
        }).length"""
        assert await browser.run(outside) == 0
        assert await browser.run("document.querySelectorAll('table.cards td').length") > 50
        longer = "[...document.querySelectorAll('.wide')].filter(n => n.scrollHeight > n.clientHeight + 1).length"
        assert await browser.run(longer) == 0, "what is longer than its frame would lie over what comes next"

    with_page(tmp_path / "profile", look)
