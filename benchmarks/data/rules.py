r"""The filters in plain Python and `re`: each takes a question and a bare answer, and says whether the row must go."""

import re
import unicodedata
from collections.abc import Callable

MIN_QUESTION, MAX_QUESTION, MAX_ANSWER = 10, 2000, 200

WRAPPED = tuple(
    re.compile(pattern, re.DOTALL)
    for pattern in (
        r"\\\(((?:(?!\\[()]).)*)\\\)",
        r"\\\[((?:(?!\\[\[\]]).)*)\\\]",
        r"\$\$([^$]*)\$\$",
        r"\$([^$]*)\$",
        r"\\(?:boxed|fbox)\{((?:[^{}]|\{[^{}]*\})*)\}",
    )
)
SPACE = re.compile(r"\s+")
DELIMITER = re.compile(r"\\[()\[\]]|\$+")
BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
FORMULA = re.compile(r"\\\(.*?\\\)|\\\[.*?\\\]|\$[^$]*\$", re.DOTALL)

PARTS = re.compile(r"(?:^|\s)(?:\(a\)|\(1\)|\(i\)|a\)).+?\s(?:\(b\)|\(2\)|\(ii\)|b\))", re.DOTALL | re.IGNORECASE)
PROOF = re.compile(r"\b(?:prove|show) that\b|\bprove\b", re.IGNORECASE)
YES_NO = re.compile(r"(?:\\text\{)?\s*(?:yes|no|true|false)\s*\}?\.?", re.IGNORECASE)
CHOICES = re.compile(
    r"(?:\(A\).+?\(B\).+?\(C\))|(?:^|\s)A[.)]\s.+?\sB[.)]\s.+?\sC[.)]\s|\(a\).+?\(b\).+?\(c\)", re.DOTALL
)
REFERENCE = re.compile(
    r"https?://|www\.|!\[|\[asy\]|\\includegraphics"
    r"|\b(?:figure|diagram|picture|graph|table|image)s?\s+(?:below|above|shows?|is shown|at|on the (?:right|left))"
    r"|\b(?:shown|given|see|use) (?:in )?the (?:\w+ )?(?:figure|diagram|picture|image|table)\b",
    re.IGNORECASE,
)
ENGLISH = re.compile(
    r"\b(?:the|of|is|and|find|what|that|if|let|for|to|in|how|are|determine|solve|with)\b", re.IGNORECASE
)
FOREIGN = re.compile(
    r"\b(?:el|los|las|que|por|una|cu[aá]ntos|le|les|est|une|combien|der|und|die|ist|zahl|il|che|numero)\b",
    re.IGNORECASE,
)
PLACEHOLDER = re.compile(r"n/?a|none|null|unknown|[?.\-_ ]*", re.IGNORECASE)


def bare_answer(text: str) -> str:
    """Without the delimiters or the box around the whole of it."""
    text = text.strip()
    unwrapped = True
    while unwrapped:
        unwrapped = False
        for pattern in WRAPPED:
            if found := pattern.fullmatch(text):
                text, unwrapped = found[1].strip(), True
    return text


def key(question: str) -> str:
    """Equal for questions that differ in Unicode form, case, spacing or delimiters only."""
    folded = unicodedata.normalize("NFKC", question).lower()
    return SPACE.sub("", DELIMITER.sub("", folded))


def missing_question(question: str, answer: str) -> bool:
    """Nothing is asked."""
    return not question.strip()


def missing_answer(question: str, answer: str) -> bool:
    """Nothing to grade, or only something that stands for it."""
    return PLACEHOLDER.fullmatch(answer) is not None


def unbalanced_answer(question: str, answer: str) -> bool:
    """A brace without its partner."""
    depth = 0
    for token in BRACE.findall(answer):
        depth += (token == "{") - (token == "}")
        if depth < 0:
            return True
    return depth != 0


def question_length(question: str, answer: str) -> bool:
    """A stub, or a page."""
    return not MIN_QUESTION <= len(question) <= MAX_QUESTION


def answer_length(question: str, answer: str) -> bool:
    """Prose."""
    return len(answer) > MAX_ANSWER


def multiple_choice(question: str, answer: str) -> bool:
    """The answers are offered."""
    return CHOICES.search(question) is not None


def multi_part(question: str, answer: str) -> bool:
    """Several questions."""
    return PARTS.search(question) is not None


def proof(question: str, answer: str) -> bool:
    """The answer shows nothing of a proof."""
    return PROOF.search(question) is not None


def yes_no(question: str, answer: str) -> bool:
    """A coin answers it."""
    return YES_NO.fullmatch(answer) is not None


def reference(question: str, answer: str) -> bool:
    """Something elsewhere is needed."""
    return REFERENCE.search(question) is not None


def non_english(question: str, answer: str) -> bool:
    """Many letters outside Latin ones, or another language's small words outnumber English ones."""
    prose = FORMULA.sub(" ", question)
    if not prose.isascii():
        letters = [letter for letter in prose if letter.isalpha()]
        if sum(ord(letter) > 0x24F for letter in letters) > 0.2 * len(letters):
            return True
    return len(FOREIGN.findall(prose)) > len(ENGLISH.findall(prose))


RULES: tuple[Callable[[str, str], bool], ...] = (
    missing_question,
    missing_answer,
    unbalanced_answer,
    question_length,
    answer_length,
    multiple_choice,
    multi_part,
    proof,
    yes_no,
    reference,
    non_english,
)
"""What one row shows by itself. Conflicting answers and exact duplicates need the others: `datasets_version.py`."""
