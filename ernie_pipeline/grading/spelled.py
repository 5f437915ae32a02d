"""Numbers in words: "twenty-one", "one hundred twenty", "minus three", "three quarters"."""

from collections.abc import Sequence
from fractions import Fraction

from ernie_pipeline.grading.word_set import word_list

_ONES = word_list(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen",
    "eighteen nineteen",
)
_TENS = word_list("twenty thirty forty fifty sixty seventy eighty ninety")
_SMALL = {word: value for value, word in enumerate(_ONES)} | {
    word: 10 * (value + 2) for value, word in enumerate(_TENS)
}
_LARGE = {"thousand": 10**3, "million": 10**6, "billion": 10**9}
_PARTS = {"half": 2, "halves": 2, "quarter": 4} | {
    word: value + 3
    for value, word in enumerate(word_list("third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth"))
}


def spelled_number(words: Sequence[str]) -> Fraction | None:
    """The number that the words spell; None where they spell none. "third" alone is no 1/3."""
    parts = [part for word in words for part in word.lower().split("-") if part != "and"]
    sign = -1 if parts[:1] in (["minus"], ["negative"]) else 1
    parts = parts[1:] if sign < 0 else parts
    if parts in (["half"], ["a", "half"], ["one", "half"]):
        return Fraction(sign, 2)
    last = parts[-1].removesuffix("s") if parts and parts[-1] != "halves" else "halves"
    if len(parts) > 1 and last in _PARTS:
        over = _whole(["one"] if parts[:-1] == ["a"] else parts[:-1])
        return None if over is None else Fraction(sign * over, _PARTS[last])
    whole = _whole(parts)
    return None if whole is None else Fraction(sign * whole)


def _whole(parts: list[str]) -> int | None:
    total = group = 0
    size = 10**12  # what comes next has to be smaller
    for part in parts:
        if part in _SMALL:
            value = _SMALL[part]
            if (group % 100 and not (group % 100 >= 20 and group % 10 == 0 and 0 < value < 10)) or (
                value == 0 and group
            ):
                return None
            group += value
        elif part == "hundred" and 0 < group < 10:
            group *= 100
        elif part in _LARGE and group and _LARGE[part] < size:
            size = _LARGE[part]
            total, group = total + group * size, 0
        else:
            return None
    return total + group if parts else None
