"""Pictures that are shown without a click: short enough, and right."""

import base64
import xml.etree.ElementTree as ET

from ernie_pipeline.orchestration.pages.sketch import LEFT, LIMIT, SPAN, Bar, Line, bars, curves


def svg(markdown: str) -> ET.Element:
    assert len(markdown) < LIMIT
    prefix, _, data = markdown.partition(";base64,")
    assert prefix.endswith("](data:image/svg+xml")
    return ET.fromstring(base64.b64decode(data.removesuffix(")")))


def of(picture: ET.Element, tag: str) -> list[ET.Element]:
    return [element for element in picture.iter() if element.tag.endswith(f"}}{tag}")]


def test_a_bar_ends_at_its_share_and_its_interval_is_drawn() -> None:
    picture = svg(bars("accuracy", [Bar("base <4 bit>", 0.5, 0.25, 0.75, "50.0 % of 8")]))
    bar, interval = (element.attrib["d"] for element in of(picture, "path"))
    assert bar == f"M{LEFT} 11H{LEFT + SPAN // 2}"
    assert interval == f"M{LEFT + SPAN // 4} 11H{LEFT + SPAN * 3 // 4}"
    assert [element.text for element in of(picture, "text")] == ["base <4 bit>", "50.0 % of 8"]


def test_of_too_many_bars_the_last_are_left_out() -> None:
    drawn = [Bar(f"kind {n}", 0.5, 0.4, 0.6, "50.0 % of 1,000") for n in range(20)]
    shown = [element.text for element in of(svg(bars("accuracy", drawn)), "text")]
    assert shown[0] == "kind 0"
    assert 2 <= len(shown) // 2 < 20


def test_lines_of_one_scale_are_drawn_on_it_and_long_ones_by_fewer_points() -> None:
    training = [(float(step), 1.0 / (1 + step)) for step in range(1000)]
    validation = [(500.0, 0.5), (999.0, 0.5)]
    lines = [Line("training", training, "0.001"), Line("validation", validation, "0.500")]
    lines.append(Line("learning rate", [(0.0, 1e-3), (999.0, 0.0)], "", scale="rate"))
    first, second, third = (element.attrib["points"] for element in of(svg(curves("losses", lines)), "polyline"))
    heights = [[int(pair.partition(",")[2]) for pair in points.split()] for points in (first, second, third)]
    assert heights[0][0] < heights[1][0] < heights[0][-1], "0.5 lies between 1 and 0.001"
    assert (heights[2][0], heights[2][-1]) == (heights[0][0], heights[0][-1]), "another scale fills the height too"
    assert len(heights[0]) >= 8
