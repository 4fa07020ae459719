"""Quality against cost, one panel a length: the front filled, the open half, the dominated hollow."""

import math
import textwrap
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import Bbox

from dsa.analysis.output.figures import style
from dsa.analysis.output.figures.spec import Chart, Panel, Spot

NAMES = {"dense": "dense attention"}
FACES = {"front": style.BLUE, "measured": style.BLUE, "open": "#A9D3EC", "dominated": "white", "unranked": "white"}
MEANINGS = {
    "front": "on the front",
    "open": "undecided",
    "dominated": "another is better or as good, and cheaper",
    "unranked": "not ranked",
}
ALONE, BESIDE = (6.4, 4.2), (4.6, 3.8)  # width and height of a panel [inches]
LINE = 14  # characters of a heading an inch
Side = tuple[float, float, str]
BY: tuple[Side, ...] = ((5, 4, "left"), (5, -9, "left"), (-5, 4, "right"), (-5, -9, "right"), (0, 9, "center"),
                        (0, -14, "center"))  # fmt: skip
AWAY: tuple[Side, ...] = tuple(
    (far * math.cos(math.radians(turn)), far * math.sin(math.radians(turn)), "left" if abs(turn) < 90 else "right")
    for far in range(18, 120, 12)
    for turn in (15, -15, 165, -165, 45, -45, 135, -135, 75, -75, 105, -105)
)
Pixel = tuple[float, float]
FEW, NEAR = 3, 4.0  # names in one place, which is so many pixels wide
NAMED = 40  # most names in a panel: hundreds would hide the points
LEADER = {"arrowstyle": "-", "linewidth": 0.4, "color": "0.55", "shrinkA": 0, "shrinkB": 3}


def draw_scatter(chart: Chart) -> Figure:
    """One panel a length.

    Raises:
        ValueError: the chart has nothing to show.
    """
    signs = legend(chart)
    width, height = BESIDE if len(chart.panels) > 1 else ALONE
    figure, axes = style.new_figure(chart, len(chart.panels), width, height + 0.15 * -(-len(signs) // 3))
    alike = len({panel.y and panel.y.title for panel in chart.panels}) == 1
    for axes_, panel in zip(axes, chart.panels, strict=True):
        draw_panel(axes_, panel, int(LINE * width), labelled=axes_ is axes[0] or not alike)
    if signs:
        style.legend_below(figure, signs, most=4)
    figure.draw_without_rendering()
    for axes_, panel in zip(axes, chart.panels, strict=True):
        name_spots(axes_, panel)
    return figure


def draw_panel(axes: Axes, panel: Panel, line: int, labelled: bool) -> None:
    """Points with both intervals, and the envelope of the means.

    Args:
        line: characters that fit into a line of the heading.
    """
    assert panel.y is not None
    style.apply(axes, panel.x, "x")
    style.apply(axes, panel.y, "y", label=labelled)
    heading = [style.fit(part, line) for text in (panel.name, panel.note) for part in textwrap.wrap(text, line)]
    axes.set_title("\n".join(heading), fontsize=7.5, loc="left")
    axes.grid(color="0.93", linewidth=0.6)
    axes.set_axisbelow(True)
    style.guides(axes, panel.y, "y")
    envelope = panel.envelope
    axes.step(
        [x for x, _ in envelope], [y for _, y in envelope], where="post", color="0.6", linewidth=0.9, linestyle="--"
    )
    for spot in panel.spots:
        colour = edge(spot)
        if spot.x_interval and spot.x_interval[1] > spot.x_interval[0]:
            axes.plot(spot.x_interval, (spot.y, spot.y), color=colour, linewidth=0.8, alpha=0.5)
        if spot.y_interval:
            axes.plot((spot.x, spot.x), spot.y_interval, color=colour, linewidth=0.8, alpha=0.5)
        axes.plot(
            spot.x, spot.y, linestyle="none", marker=style.CONTROL_MARKERS.get(spot.role, "o"), color=colour,
            markersize=7 if spot.role == "baseline" else 5.5, markeredgewidth=1.2, markerfacecolor=face(spot),
        )  # fmt: skip


def edge(spot: Spot) -> str:
    return style.colour_of(spot.role, style.GREY if spot.standing == "unranked" else style.BLUE)


def face(spot: Spot) -> str:
    """Filled as its standing says; the baseline in its own colour."""
    if spot.role not in ("condition", "baseline"):
        return "white" if spot.standing == "dominated" else edge(spot)
    if spot.role == "baseline" and spot.standing in ("front", "measured"):
        return style.VERMILION
    return FACES[spot.standing]


def legend(chart: Chart) -> list[Line2D]:
    """The standings and controls that occur."""
    spots = [spot for panel in chart.panels for spot in panel.spots]
    standings = [s for s in MEANINGS if any(p.standing == s and p.role in ("condition", "baseline") for p in spots)]
    roles = [role for role in ("baseline", *style.CONTROL_MARKERS) if any(spot.role == role for spot in spots)]
    signs = [
        ("o", style.GREY if standing == "unranked" else style.BLUE, FACES[standing], MEANINGS[standing])
        for standing in standings
    ]
    for role in roles:
        colour = style.colour_of(role)
        signs.append((style.CONTROL_MARKERS.get(role, "o"), colour, colour, NAMES.get(role, role)))
    return [
        Line2D([], [], linestyle="none", marker=marker, color=colour, markerfacecolor=inside, markersize=5, label=name)
        for marker, colour, inside, name in signs
    ]


def name_spots(axes: Axes, panel: Panel) -> None:
    """Names beside the points, the front first; where it is crowded away from them, with a line.

    Of more than FEW in one place one is named. A name that finds no free place even so is left to the table, and so
    are those that come after the first NAMED.
    """
    order = ("front", "measured", "open", "dominated", "unranked")
    taken = [Bbox.from_bounds(x - 5, y - 5, 10, 10) for x, y in pixels(axes, panel.spots)]
    frame = axes.get_window_extent()
    ranked = sorted(panel.spots, key=lambda s: (s.role != "baseline", order.index(s.standing)))
    for spot, name in named(axes, ranked)[:NAMED]:
        for dx, dy, side in (*BY, *AWAY):
            text = axes.annotate(
                style.fit(name), (spot.x, spot.y), (dx, dy), textcoords="offset points", fontsize=6, ha=side,
                color=style.colour_of(spot.role, "0.15"),
            )  # fmt: skip
            text.set_in_layout(False)
            box = text.get_window_extent()
            inside = frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
            if inside and not any(box.overlaps(other) for other in taken):
                taken.append(box)
                if (dx, dy, side) in AWAY:
                    axes.annotate("", (spot.x, spot.y), (dx, dy), textcoords="offset points", arrowprops=LEADER)
                break
            text.remove()


def named(axes: Axes, spots: list[Spot]) -> list[tuple[Spot, str]]:
    """Spots with their names; where more than FEW lie in one place, the first with how many more there are."""
    heaps: list[list[tuple[Spot, Pixel]]] = []
    for spot, at in zip(spots, pixels(axes, spots), strict=True):
        near = next((heap for heap in heaps if math.dist(heap[0][1], at) <= NEAR), None)
        if near is None:
            heaps.append(near := [])
        near.append((spot, at))
    out = []
    for heap in heaps:
        few = len(heap) <= FEW
        out += (
            [(spot, spot.label) for spot, _ in heap] if few else [(heap[0][0], f"{heap[0][0].label} + {len(heap) - 1}")]
        )
    return out


def pixels(axes: Axes, spots: Sequence[Spot]) -> list[Pixel]:
    """Where spots are drawn."""
    return [(float(x), float(y)) for x, y in axes.transData.transform([(spot.x, spot.y) for spot in spots])]
