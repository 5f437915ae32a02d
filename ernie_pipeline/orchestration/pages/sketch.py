"""Pictures so small that Dagster shows them on the page itself: Markdown below 1,000 characters needs no click."""

import base64
from collections.abc import Sequence
from typing import NamedTuple

LIMIT = 1000
"""What is as long is behind a link "[Show Markdown]": MetadataEntry in Dagster's web app."""
WIDTH, LEFT, SPAN, STEP = 440, 96, 220, 22
"""Pixels: of all, of the labels, of a share of 1, from one bar to the next."""
LETTERS = 14
"""Of a label: as many as fit beside the bars."""
HEIGHT, LABELS = 120, 84
"""Pixels of a curve, and of the figures at its right."""
COLOURS = ("#aaa", "#27b", "#3a7", "#c53")


class Bar(NamedTuple):
    """A share in [0, 1] with its 95 % interval and how it is written."""

    label: str
    share: float
    low: float
    high: float
    words: str
    colour: str = COLOURS[0]


class Line(NamedTuple):
    """A curve's line: what it is called, its points (x, y), its last value in words, and which lines share a scale."""

    label: str
    points: Sequence[tuple[float, float]]
    words: str
    scale: str = ""


def bars(name: str, drawn: Sequence[Bar]) -> str:
    """The bars below one another, as a Markdown image; the last ones are left out where it would be too long."""
    for count in range(len(drawn), 0, -1):
        body = "".join(_bar(bar, STEP * place) for place, bar in enumerate(drawn[:count]))
        if len(picture := _markdown(name, WIDTH, STEP * count, body)) < LIMIT:
            return picture
    return ""


def curves(name: str, lines: Sequence[Line]) -> str:
    """The lines over one x-axis, as a Markdown image; of long ones fewer points. Each `scale` fills the height."""
    lines = [line for line in lines if line.points]
    xs = [x for line in lines for x, _ in line.points]
    for most in (60, 40, 25, 15, 8, 2):
        body = "".join(_curve(line, place, most, xs, _ys(lines, line.scale)) for place, line in enumerate(lines))
        if len(picture := _markdown(name, WIDTH, HEIGHT, body)) < LIMIT:
            return picture
    return ""


def _bar(bar: Bar, top: int) -> str:
    start, end, low, high = (LEFT + round(SPAN * share) for share in (0.0, bar.share, bar.low, bar.high))
    middle = top + STEP // 2
    return (
        f"<text y='{middle + 4}'>{_plain(bar.label[:LETTERS])}</text>"
        f"<path d='M{start} {middle}H{end}' stroke='{bar.colour}' stroke-width='14'/>"
        f"<path d='M{low} {middle}H{high}' stroke='#000'/>"
        f"<text x='{LEFT + SPAN + 8}' y='{middle + 4}'>{_plain(bar.words)}</text>"
    )


def _ys(lines: Sequence[Line], scale: str) -> list[float]:
    return [y for line in lines if line.scale == scale for _, y in line.points]


def _curve(line: Line, place: int, most: int, xs: Sequence[float], ys: Sequence[float]) -> str:
    """`xs`, `ys`: all that share its axes."""
    count = len(line.points)
    kept = sorted({round(n * (count - 1) / max(most - 1, 1)) for n in range(most)})
    wide, high = (max(xs) - min(xs)) or 1, (max(ys) - min(ys)) or 1
    points = " ".join(
        f"{round((x - min(xs)) / wide * (WIDTH - LABELS - 16)) + 2},{round((max(ys) - y) / high * (HEIGHT - 16)) + 8}"
        for x, y in (line.points[n] for n in kept)
    )
    colour, side = COLOURS[1 + place], WIDTH - LABELS
    label = f"<text x='{side}' y='{14 + 34 * place}' fill='{colour}'>{_plain(line.label)}"
    label += f"<tspan x='{side}' dy='14'>{_plain(line.words)}</tspan></text>"
    return f"<polyline points='{points}' fill='none' stroke='{colour}'/>{label}"


def _plain(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")


def _markdown(name: str, width: int, height: int, body: str) -> str:
    font = "font-family='sans-serif' font-size='12'"
    svg = f"<svg xmlns='http://www.w3.org/2000/svg' width='{width}' height='{height}' {font}>{body}</svg>"
    return f"![{name}](data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()})"
