import base64
import io

from ernie_pipeline.orchestration.plots import accuracy_by_kind, dropped_rows, pass_rates, pictures_of_training


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


def test_what_mlflow_gets_are_png_files_of_what_was_trained_and_measured() -> None:
    from matplotlib.image import imread

    metrics = {"rows": 8, "accuracy": 0.5, "accuracy_low": 0.3, "accuracy_high": 0.7}
    one = metrics | {"by_kind": {"integer": {"rows": 8, "accuracy": 0.5}}}
    two = metrics | {"by_kind": {"integer": {"rows": 6, "accuracy": 0.5}, "fraction": {"rows": 2, "accuracy": 0.5}}}
    assert imread(io.BytesIO(accuracy_by_kind(two, two))).shape > imread(io.BytesIO(accuracy_by_kind(one, one))).shape
    assert [*pictures_of_training([{"step": 1, "loss": 0.5}])] == ["loss_curve"]
    assert [*pictures_of_training([{"step": 1, "loss": 0.5, "reward": 0.5}])] == ["reward_curve"]
