"""Numbers as people write them."""

import math
from pathlib import Path

import pytest

from ernie_pipeline.orchestration.words import (
    duration,
    figure,
    moment,
    place,
    rounded,
    rows,
    size,
)


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (0.6113200456803652, "0.611"),
        (0.9999, "1.000"),
        (0.03289, "0.0329"),
        (1.2345, "1.23"),
        (12.345, "12.3"),
        (725.8, "726"),
        (1234.5, "1,234"),
        (1234567, "1,234,567"),
        (1.9301194697618484e-05, "1.9e-05"),
        (0.0, "0"),
        (7, "7"),
        (-0.25, "-0.250"),
        (math.nan, "nan"),
    ],
)
def test_a_figure_has_three_digits_and_its_thousands_parted(value: float, written: str) -> None:
    assert figure(value) == written


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.6, "1 min"),
        (724, "12 min 4 s"),
        (3599.9, "1 h"),
        (11100, "3 h 5 min"),
        (86400 * 2 + 3 * 3600, "2 d 3 h"),
    ],
)
def test_a_duration_has_two_units_at_most(seconds: float, written: str) -> None:
    assert duration(seconds) == written


def test_counts_times_and_sizes() -> None:
    assert (rows(1), rows(1234)) == ("1 row", "1,234 rows")
    assert moment("2026-11-29T01:05:28.430+01:00") == "2026-11-29 00:05 UTC"
    assert (size(999), size(71_234_567)) == ("999 bytes", "71.2 MB")
    assert (rounded(0.6113200456803652), rounded(0.0), rounded(1234.5)) == (0.611, 0.0, 1230.0)


def test_a_path_below_the_working_folder_is_written_from_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert place(tmp_path / ".ernie" / "store") == ".ernie/store"
    assert place(Path("/elsewhere")) == "/elsewhere"
