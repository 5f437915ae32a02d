"""Shares, and differences between two, as people write them: 77.9 %, 72.4 to 82.5 %, +9.5 points."""

import math
import re

PERCENT = re.compile(r"(?<=\d)%(?=$|[\s,;:)]|\.(?:\s|$))")
"""Python's "77.9%", and nothing of a file's name or an address."""
ONE_THREAD = re.compile(r"\b1 threads\b")


def percent(share: float | None, digits: int = 1) -> str:
    """ "73.4 %" of 0.7341; "" of None."""
    return "" if share is None or math.isnan(share) else f"{100 * share:.{digits}f} %"


def between(low: float | None, high: float | None) -> str:
    """ "67.9 to 78.8 %" of two shares."""
    return "" if low is None or high is None else f"{100 * low:.1f} to {100 * high:.1f} %"


def points(gain: float, digits: int = 1) -> str:
    """ "+9.5 points" of a difference of 0.095 between two shares."""
    return f"{100 * gain:+.{digits}f} points"


def points_between(low: float, high: float) -> str:
    """ "+5.2 to +14.0" points, of two such differences."""
    return f"{100 * low:+.1f} to {100 * high:+.1f}"


def as_shown(line: str) -> str:
    """What a job wrote, as pages and terminal have it: "77.9 %" for Python's "77.9%", "1 thread" for "1 threads".

    Done where it is shown, since a job's code, which decides its output, is in its fingerprint.
    """
    return ONE_THREAD.sub("1 thread", PERCENT.sub(" %", line))
