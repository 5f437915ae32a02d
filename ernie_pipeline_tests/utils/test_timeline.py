"""The marks that a process leaves of its work."""

import time

import pytest

from ernie_pipeline.utils.timeline import ended, part, timeline


def told(name: str) -> tuple[float, float]:
    """The one part of that name."""
    (found,) = [(since, until) for since, until, what in timeline()["parts"] if what == name]
    return found


def test_parts_lie_in_each_other_and_come_in_the_order_of_their_beginnings() -> None:
    with part("outer"):
        time.sleep(0.01)
        with part("inner"):
            time.sleep(0.02)
    outer, inner = told("outer"), told("inner")
    assert outer[0] + 0.008 <= inner[0] < inner[0] + 0.018 <= inner[1] <= outer[1]
    names = [name for _, _, name in timeline()["parts"]]
    assert names.index("outer") < names.index("inner")


def test_a_part_that_fails_is_marked_and_its_error_goes_on() -> None:
    with pytest.raises(ValueError, match="broken"), part("failing"):
        raise ValueError("broken")
    assert told("failing")


def test_a_part_that_was_timed_elsewhere_ends_now() -> None:
    ended("timed elsewhere", 0.5)
    since, until = told("timed elsewhere")
    assert until - since == pytest.approx(0.5, abs=0.002)
    assert timeline()["began_at"] + until == pytest.approx(time.time(), abs=0.2)
