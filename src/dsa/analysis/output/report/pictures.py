"""Pictures of selections that runs left behind, to be shown inside the page."""

import base64
from dataclasses import dataclass
from pathlib import Path

from dsa.analysis.judgement.analysis import Analysis
from dsa.analysis.output.figures.curves import origins
from dsa.analysis.output.figures.places import labels, places, title

MOST = 2_000_000  # bytes of pictures in one page


@dataclass(frozen=True)
class Picture:
    """A picture with its caption; content: base64 of a PNG."""

    caption: str
    content: str


def pictures(analysis: Analysis) -> list[Picture]:
    """The last picture of each condition's first seed that kept one, as far as the page has room."""
    out, size = [], 0
    for place in places(analysis):
        for label in labels(analysis, place):
            path = last(origins(analysis.prepared.rows(label, place[0])).dropna().tolist())
            if path is not None and size + path.stat().st_size <= MOST:
                size += path.stat().st_size
                content = base64.b64encode(path.read_bytes()).decode()
                out.append(Picture(f"{label}, {title(place)}, {path.stem.replace('_', ' ')}", content))
    return out


def last(folders: list[str]) -> Path | None:
    """The last picture in the first folder that holds any."""
    for folder in folders:
        found = sorted(Path(folder).glob("maps/selection_*.png"))
        if found:
            return found[-1]
    return None
