import base64
import io

from ernie_pipeline.orchestration.plots import dropped_rows, pass_rates


def size_of(markdown: str) -> tuple[int, int]:
    from matplotlib.image import imread

    prefix, _, data = markdown.partition(";base64,")
    assert prefix == "![rows dropped by each filter, and kept](data:image/png"
    height, width, _ = imread(io.BytesIO(base64.b64decode(data.removesuffix(")")))).shape
    return height, width


def test_each_filter_that_took_rows_and_each_place_has_a_bar() -> None:
    places = {"train": 700, "evaluation": 30, "unused": 0, "dropped": 8}
    one = size_of(dropped_rows({"proof": 8, "never": 0}, places))
    same = size_of(dropped_rows({"proof": 8, "never": 0, "nor_this": 0}, places))
    more = size_of(dropped_rows({"proof": 5, "yes_no": 3}, places))
    assert one == same
    assert more[0] > one[0]


def test_nothing_dropped_is_a_picture_too() -> None:
    assert size_of(dropped_rows({"proof": 0}, {"train": 1, "evaluation": 1}))


def test_pass_rates_are_a_picture_of_as_many_bars() -> None:
    picture = pass_rates([17, 0, 11, 0, 0, 6, 0, 13, 0, 13])
    assert picture.startswith("![pass rates of the problems](data:image/png;base64,")
    assert picture != pass_rates([0] * 10)
