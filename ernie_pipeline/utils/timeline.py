"""What this process did when: a mark at the beginning and the end of each outermost part of its work.

A process has one timeline, kept from its first import of this module on. What a GPU is still doing when a part ends
counts to what waits for it.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

BEGAN_AT = time.time()
"""When this module was imported, in seconds since 1970, for whoever started the process."""
_ORIGIN = time.perf_counter()
_PARTS: list[tuple[str, float, float]] = []


@contextmanager
def part(name: str) -> Iterator[None]:
    """A part of the work, which may lie in another; it is marked however it ends."""
    since = time.perf_counter()
    try:
        yield
    finally:
        ended(name, time.perf_counter() - since)


def ended(name: str, seconds: float) -> None:
    """A part that took so long has ended now."""
    now = time.perf_counter() - _ORIGIN
    _PARTS.append((name, now - seconds, now))


def timeline() -> dict[str, Any]:
    """`began_at`, and the `parts` that have ended, in the order of their beginnings: seconds after it and name."""
    parts = sorted(_PARTS, key=lambda each: (each[1], -each[2]))
    return {"began_at": BEGAN_AT, "parts": [[round(since, 3), round(until, 3), name] for name, since, until in parts]}
