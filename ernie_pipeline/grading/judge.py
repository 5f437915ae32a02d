r"""One answer against one reference answer: right or wrong, and why. Pure; grading.py runs it in worker processes."""

from dataclasses import dataclass

from ernie_pipeline.grading.compare import differs
from ernie_pipeline.grading.exact import TooLarge, Undefined
from ernie_pipeline.grading.extract import boxes, breaks_off, spoken, without_box
from ernie_pipeline.grading.families import same_family
from ernie_pipeline.grading.normalize import normalize
from ernie_pipeline.grading.readings import readings, wanted

_MOST_BOXES = 50
_LONGEST = 10_000
"""Characters up to which a text is looked at other than as a whole."""


@dataclass(frozen=True)
class Judgement:
    """`reason`: a short phrase; `extracted`: the text that was judged, None where nothing was found."""

    correct: bool
    reason: str
    boxed: bool
    extracted: str | None


def judge(answer: str, reference: str) -> Judgement:
    """Judge a model's whole output by the bare reference answer."""
    said = spoken(answer)
    found = list(dict.fromkeys(box.strip() for box in boxes(said)[::-1]))
    if breaks_off(said):
        return Judgement(False, "the box is not closed", False, None)
    if not found:
        text = without_box(said)
        if text is None:
            return Judgement(False, "no answer was found", False, None)
        reason = difference(reference, text)
        return Judgement(reason is None, reason or "the same", False, text)
    text = found[0]
    if not text:
        return Judgement(False, "the box is empty", True, None)
    if len(found) > _MOST_BOXES or any(difference(text, other) is not None for other in found[1:]):
        return Judgement(False, "several boxes disagree", True, text)
    reason = difference(reference, text)
    return Judgement(reason is None, reason or "the same", True, text)


def difference(reference: str, answer: str) -> str | None:
    """What differs between two answers as texts, in a few words; None where they say the same."""
    if len(answer) > _LONGEST or len(reference) > _LONGEST:
        return None if reference.strip() == answer.strip() else "it is too long to be read"
    one, other = normalize(reference), normalize(answer)
    if not other.strip("{} "):
        return "there is no answer"
    if _bare(one) == _bare(other):
        return None
    if one.isdigit() and other.isdigit():
        return None if one.lstrip("0") == other.lstrip("0") else "the value differs"
    first: str | None = None
    for asked in wanted(one):
        for given in readings(other):
            try:
                found = differs(asked, given)
                found = None if found and same_family(asked, given) else found
            except TooLarge:
                found = "a value is too large to be computed"
            except Undefined:
                found = "a value is not defined"
            except (ValueError, ArithmeticError, RecursionError, MemoryError):
                found = "it cannot be computed"
            except Exception as error:  # a fault of ours must not end the grading of all the others
                found = f"comparing it failed with {type(error).__name__}"
            if found is None:
                return None
            first = first or found
    return first


def _bare(text: str) -> str:
    """Without spaces where they part nothing."""
    out = []
    for number, char in enumerate(text):
        before, after = text[number - 1 : number], text[number + 1 : number + 2]
        if char == " " and not (before.isalnum() and after.isalnum()):
            continue
        out.append(char)
    return "".join(out)
