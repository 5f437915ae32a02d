r"""math-verify, for the filter of unreadable answers.

Its own time limits use signals, which fail in threads, so they are off here: who calls this runs it in a process that
can be killed (worker_pool.py).

Code in an answer is never run. Text reaches sympy's `eval` in two ways (math-verify 0.9, latex2sympy2_extended
1.11): by `parse_expr`, for which a regex lets only digits, blanks, points, brackets and signs of arithmetic
through, and by `Number(text)`, which is given tokens of digits alone. All other text becomes the name of a symbol or
function, which sympy takes as it is. Seen so with an audit hook on `compile`; the tests try it.
"""

import logging
import re
from typing import Any

LIBRARIES = ("math-verify", "latex2sympy2_extended", "sympy", "mpmath")
"""The distributions that decide what it reads."""

_GROUPED = re.compile(r"(?<=\d)(?:\\[,!;: ]|[ ~\u00a0\u202f])(?=\d{3}(?![\d/]))")
_TEXT = re.compile(r"\\(?:text|textbf|textrm|mathrm|mathbf)\s*\{([^{}\\]*)\}")

# What math-verify and sympy raise when two parsed sides cannot be compared, seen over 100,000 pairs of odd answers
# (1/0: ValueError; "x \neq 3" with another relation: KeyError), and what sympy documents for the undecidable. For
# parsing, SympifyError is a ValueError: a number of over 4,300 digits. Anything else is a crash.
_INCOMPARABLE = (ValueError, KeyError, TypeError, NotImplementedError, ArithmeticError, RecursionError, MemoryError)


def warm_up() -> None:
    """Import math-verify, and let it build its regular expressions and its grammar: seconds, once in a process."""
    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that its timeouts are off
    parse(r"\boxed{x=1}")


def tidy(text: str) -> str:
    r"""Make plain what math-verify cannot read, or misreads: "10 000" (to it 10 times 0), "5.", `\text{Yes}`."""
    text = " ".join(_GROUPED.sub("", text).split()).rstrip(".")
    whole = _TEXT.fullmatch(text)
    return whole[1].strip() if whole else text


def box(text: str) -> str:
    """The text as a boxed answer."""
    return rf"\boxed{{{text}}}"


def parse(text: str) -> list[Any]:
    """What math-verify reads in `text`: [sympy expression, its text], [text] if unparsable, [] if there is nothing."""
    from math_verify import parse as read

    try:
        return list(read(text, parsing_timeout=None, raise_on_error=True))
    except _INCOMPARABLE:
        return []
