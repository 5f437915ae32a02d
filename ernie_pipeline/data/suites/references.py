r"""The reference answer of a suite's row, from the form in which its column has it.

Which form that is, the recipe says; nothing is guessed from a set's name. GSM8K's stands behind `####`, at the end of a
worked solution; a solution of MATH has it in `\boxed{}`; SVAMP's may be a number, OlympiadBench's a list.
"""

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from ernie_pipeline.data.normalize.answers import bare_answer
from ernie_pipeline.data.read.extract import AFTER, BOXED, extract_answer

HASHES = "####"


def reference_answer(value: Any, form: str) -> str | None:
    r"""The bare reference answer in a column's `value`, None where there is none. `form`: as `SuiteColumns.reference`.

    >>> reference_answer("She sells 9 eggs. #### 1,018", "after_hashes")
    '1,018'
    >>> reference_answer(r"So it is $\boxed{\frac{1}{2}}$.", "boxed")
    '\\frac{1}{2}'
    >>> reference_answer(145.0, "plain"), reference_answer(r"$\pi$", "plain")
    ('145', '\\pi')
    >>> reference_answer(["2", "$-3$"], "list")
    '2, -3'
    >>> reference_answer("no answer", "after_hashes"), reference_answer(None, "plain"), reference_answer([], "list")
    (None, None, None)
    """
    found = FORMS[form](value)
    bare = bare_answer(found) if found is not None else ""
    return bare or None


def _plain(value: Any) -> str | None:
    if isinstance(value, Decimal) and value.is_finite():  # of a Parquet file
        text = f"{value:f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    if isinstance(value, float):
        if value != value or value in (float("inf"), float("-inf")):
            return None
        return str(int(value)) if value.is_integer() else repr(value)
    return str(value)


def _after_hashes(value: Any) -> str | None:
    return extract_answer(value, AFTER + HASHES) if isinstance(value, str) else None


def _boxed(value: Any) -> str | None:
    return extract_answer(value, BOXED) if isinstance(value, str) else None


def _list(value: Any) -> str | None:
    if not isinstance(value, list | tuple):
        return None
    members = [reference_answer(member, "plain") for member in value]
    return ", ".join(member for member in members if member) if all(members) else None


FORMS: Mapping[str, Callable[[Any], str | None]] = {
    "plain": _plain,
    "after_hashes": _after_hashes,
    "boxed": _boxed,
    "list": _list,
}
WANTED: Mapping[str, str] = {
    "plain": "text or a number",
    "after_hashes": f"text with the answer behind {HASHES}",
    "boxed": "text with the answer in \\boxed{}",
    "list": "a list of answers",
}
"""What a column of each form has, in words."""
