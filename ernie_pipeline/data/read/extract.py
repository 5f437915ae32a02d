r"""The reference answer out of a column that holds more than it: a worked solution, a sentence, a number.

`extract` is the recipe's word for how: "" (all of the text), "boxed" (the last `\boxed{}`), "after ####" (behind the
last ####, or any other mark), or a regular expression (its last match: group 1 where it has groups, else all of it).
"""

import math
import re
from decimal import Decimal
from functools import cache
from typing import Any

from ernie_pipeline.grading.extract import last_boxed

AFTER = "after "
BOXED = "boxed"
_WHOLE = re.compile(r"([+-]?\d+)\.0+")


def extract_answer(text: str, extract: str) -> str | None:
    r"""The answer in `text`, without white space around it; None where there is none.

    >>> extract_answer("6 + 3 = 9 eggs. #### 1,018", "after ####")
    '1,018'
    >>> extract_answer(r"So it is $\boxed{\frac{1}{2}}$.", "boxed")
    '\\frac{1}{2}'
    >>> extract_answer("The answer is 7.", r"answer is (.+?)\.?$")
    '7'
    >>> extract_answer(" 18 ", ""), extract_answer("no mark", "after ####"), extract_answer("#### ", "after ####")
    ('18', None, None)
    """
    found: str | None = text
    if extract == BOXED:
        found = last_boxed(text)
    elif extract.startswith(AFTER):
        mark = extract.removeprefix(AFTER)
        found = text.rpartition(mark)[2] if mark in text else None
    elif extract:
        found = _last_match(extract, text)
    return (found or "").strip() or None


def answer_text(value: Any) -> str | None:
    """A column's value as text: text as it is, a number as people write it (18.0 is 18); None for anything else.

    >>> answer_text(18), answer_text(18.0), answer_text(0.5), answer_text("a"), answer_text(None), answer_text(True)
    ('18', '18', '0.5', 'a', None, None)
    """
    if isinstance(value, str):
        return value
    if isinstance(value, Decimal) and value.is_finite():  # of a Parquet file
        text = f"{value:f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    text = repr(value)
    whole = _WHOLE.fullmatch(text)
    return whole[1] if whole else text


def what_is_missing(extract: str) -> str:
    r"""What a text without an answer lacks, as in "answer holds no \boxed{}"."""
    if extract == BOXED:
        return "holds no \\boxed{}"
    if extract.startswith(AFTER):
        return f"has nothing behind {extract.removeprefix(AFTER)}"
    return f"has no match of {extract!r}" if extract else "is empty"


def what_is_wanted(extract: str) -> str:
    """What a column is to hold, in words."""
    if extract == BOXED:
        return "text with the answer in \\boxed{}"
    if extract.startswith(AFTER):
        return f"text with the answer behind {extract.removeprefix(AFTER)}"
    return f"text with a match of {extract!r}" if extract else "text, a number or a list of them"


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


def _last_match(pattern: str, text: str) -> str | None:
    matches = list(_compiled(pattern).finditer(text))
    if not matches:
        return None
    found: str | None = matches[-1][1 if matches[-1].re.groups else 0]
    return found
