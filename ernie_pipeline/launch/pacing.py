"""A job counts as it goes, many times a second; who follows it hears of that every few seconds.

Here and not in utils/, since what a stage's code reaches is in its fingerprint, and this decides nothing of an output.
"""

import re
import time
from collections.abc import Callable
from typing import Any

from ernie_pipeline.utils.reporter import Reporter

COUNT = re.compile(r"\b(\d+) of (\d+)\b")
"""How jobs say how far they are: "answered 21 of 33"."""
PAUSE_S = 10.0


def paced(report: Reporter, pause_s: float = PAUSE_S, clock: Callable[[], float] = time.monotonic) -> Reporter:
    """`report`, without the lines "answered 34 of 253" that follow another within `pause_s`, but for the last one.

    A line with values goes through: these are plotted. The first count has to wait too, so that a short job tells its
    last one only.
    """
    told = clock()

    def tell(line: str, values: dict[str, Any]) -> None:
        nonlocal told
        count = None if values else COUNT.search(line)
        if count and count[1] != count[2]:
            if clock() - told < pause_s:
                return
            told = clock()
        report(line, values)

    return tell
