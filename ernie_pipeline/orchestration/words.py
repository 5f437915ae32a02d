"""Numbers as people write them, for pages and logs: 0.611, 12 min 4 s, 1,234; shares are in `utils/shares.py`."""

import math
from datetime import UTC, datetime
from pathlib import Path

DIGITS = 3
"""Significant digits of a figure that is no count."""


def rounded(value: float) -> float:
    """The value with `DIGITS` significant digits: a number still, which Dagster plots."""
    if not value or not math.isfinite(value):
        return value
    return round(value, DIGITS - 1 - math.floor(math.log10(abs(value))))


def figure(value: float) -> str:
    """ "0.611" of 0.61132, "1,234" of 1234.2, "2.3e-05" of 0.0000231; whole numbers as they are, "1,234,567"."""
    if isinstance(value, int):
        return f"{value:,}"
    if not math.isfinite(value):
        return str(value)
    size = abs(value)
    if size and size < 1e-3:
        return f"{value:.2g}"
    if size >= 10 ** (DIGITS - 1):
        return f"{value:,.0f}"
    decimals = DIGITS - 1 - (math.floor(math.log10(size)) if size else 0)
    return f"{value:.{decimals}f}" if size else "0"


def rows(count: int, what: str = "row") -> str:
    """ "1,234 rows", "1 row"."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def duration(seconds: float) -> str:
    """ "4.2 s", "47 s", "12 min 4 s", "3 h 5 min", "2 d 3 h"."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if not minutes:
        return f"{whole} s"
    if not hours:
        return _two(minutes, "min", whole % 60, "s")
    if not days:
        return _two(hours, "h", whole % 3600 // 60, "min")
    return _two(days, "d", whole % 86400 // 3600, "h")


def _two(large: int, unit: str, small: int, lesser: str) -> str:
    return f"{large} {unit} {small} {lesser}" if small else f"{large} {unit}"


def moment(iso: str) -> str:
    """ "2026-11-29 00:05 UTC" of a time as a manifest has it."""
    return f"{datetime.fromisoformat(iso).astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def place(path: Path) -> str:
    """A path as short as it can be written: from the folder that this process was started in, where it is below it.

    A path has no place to break, and one of 70 characters makes a page too wide for its window.
    """
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def size(count: float) -> str:
    """ "71.2 MB" of bytes."""
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{figure(float(count))} {unit}"
        count /= 1000
    return f"{figure(float(count))} GB"
