r"""The reference answer of a suite's row, from wherever the recipe's `extract` says that it stands in its column.

Nothing is guessed from a set's name. GSM8K's stands behind `####`, at the end of a worked solution; a solution of MATH
has it in `\boxed{}`; SVAMP's may be a number, OlympiadBench's a list, of which all are the answer.
"""

from typing import Any

from ernie_pipeline.data.normalize.answers import bare_answer
from ernie_pipeline.data.read.extract import answer_text, extract_answer


def reference_answer(value: Any, extract: str) -> str | None:
    r"""The bare reference answer in a column's `value`, None where there is none.

    >>> reference_answer("She sells 9 eggs. #### 1,018", "after ####")
    '1,018'
    >>> reference_answer(r"So it is $\boxed{\frac{1}{2}}$.", "boxed")
    '\\frac{1}{2}'
    >>> reference_answer(145.0, ""), reference_answer(r"$\pi$", "")
    ('145', '\\pi')
    >>> reference_answer(["2", "$-3$"], "")
    '2, -3'
    >>> reference_answer("no answer", "after ####"), reference_answer(None, ""), reference_answer([], "")
    (None, None, None)
    """
    found = [_bare(member, extract) for member in (value if isinstance(value, list | tuple) else [value])]
    answers = [answer for answer in found if answer]
    return ", ".join(answers) if answers and len(answers) == len(found) else None


def _bare(value: Any, extract: str) -> str:
    text = answer_text(value)
    return bare_answer((extract_answer(text, extract) if text is not None else None) or "")
