r"""Questions that offer their answers: (A) 4 (B) 5, A. 4 B. 5, in lines or one after the other.

A row of option signs is told from labels (circles (A), (B)), initials (A. Smith) and conditions ((a) f(0) = 1) by what
stands around it: the first sign begins a line or follows a sentence's end or a word that an answer completes; each
has something behind it; and nothing is asked behind the last one, unless something was asked before the first.
"""
# ruff: noqa: RUF001 (full-width punctuation, as in what was translated from Chinese)

from collections.abc import Iterable

import polars as pl

from ernie_pipeline.data.filter.questions import IMPERATIVE
from ernie_pipeline.data.filter.reasons import KEEPS, quoted
from ernie_pipeline.data.normalize.masked import apply_where
from ernie_pipeline.recipe.sections import Filters

_STYLE = r"(?:\\(?:text|textbf|textrm|mathrm|mathbf|rm|bf|textit)\s*\{?\s*|\{\\(?:bf|rm)\s*|\*\*)"
_SAYS = r"[\s$:~.,\\}*'\]]*[^\s,.;:)]"
"""From a sign on, the first character of what the option says."""


def _enclosed(letter: str) -> str:
    r"""(A), [A], {A} or <A>, or a styled A. or A): `\textbf{(A)}`, `(\mathrm{A})`."""
    return (
        rf"(?:\$?{_STYLE}?[(\[{{<]\s*{_STYLE}?{letter}\s*\}}?\s*[)\]}}>]|\$?{_STYLE}\(?{letter}\s*[.)}}])"
        rf"[\s$:~.\\}}*\]]*[^\s,.;:)]"
    )


def _pointed(letter: str) -> str:
    """A. or A: or A、."""
    return rf"{letter}\s?[.:、．：]{_SAYS}"


def _closed(letter: str) -> str:
    """A) without an opening bracket."""
    return rf"{letter}\.?\s?\){_SAYS}"


def _in_row(signs: Iterable[str], between: str = ".*?", before: str = r"\s") -> str:
    return f"{between}{before}".join(signs)


_SENTENCE = r"(?:^|[.:;?!$)\]}_。？：）&>]\s*|\n\s*|\\n|\\\[\s*|\\item\s*\[?)"
_COMPLETED = (
    r"\b(?:is|are|be|equals?|to|by|was|than|has|have|in|of|at|only|if|when|then|approximately|about|always|costs?)"
    r"(?: [a-z]+:?)?\s*:?\s+"
)
_BEFORE = rf"(?:{_SENTENCE}|{_COMPLETED})"
_NEXT = r"[\s;,*$.]"
_NO_OPEN_BRACKET = r"(?:[^()]|\([^()]*\))*?"

_OPTIONS = (
    _BEFORE + _in_row(map(_enclosed, "ABC"), before=rf"{_NEXT}?"),
    # wherever it begins, if it goes on to a fourth, or ends with an "or"
    r"\s" + _in_row(map(_enclosed, "ABC"), between="[^?]*?") + rf"[^?]*?\s{_enclosed('D')}",
    r"\s" + _in_row([_enclosed("A"), _enclosed("B"), "or " + _enclosed("C")], between="[^?]*?"),
    # two of them
    rf"[?:]\s*{_enclosed('A')}[^?]*?{_NEXT}{_enclosed('B')}",
    # A) ... B) ..., with no bracket between that one of these could close
    rf"{_SENTENCE}{_closed('A')}{_NO_OPEN_BRACKET}\s{_closed('B')}",
    r"[\s$]" + _in_row(map(_closed, "ABC"), between=_NO_OPEN_BRACKET, before=r"[\s$]"),
    r"\s" + _in_row([r"a \) ", r"b \) ", r"c \) "]),
    # A. ... B. ... C. ...
    _BEFORE + r"\**" + _in_row(map(_pointed, "ABC"), before=_NEXT),
    rf"\?\s*\**{_pointed('A')}[^?\n]+?{_NEXT}{_pointed('B')}",
    # in lines
    r"\n\s*[-*]*\s*A\s?(?:[.:)-]\s|：)[^\n]*\n\s*[-*]*\s*B\s?(?:[.:)-]\s|：)",
    r"\n\s*A\s[^\n]*\n\s*B\s[^\n]*\n\s*C\s[^\n]*(?:\n\s*[D-H]\s[^\n]*)*\s*$",
    r"[Ww]hich[^?]*\?\s*\n\s*[-*•]\s[^\n]+\n\s*[-*•]\s[^\n]+\n\s*[-*•]\s[^\n]+(?:\n\s*[-*•]\s[^\n]+)*\s*$",
    r"[Ww]hich[^?]*\?[^?]*\\item[^?]*\\item[^?]*\\item",
    # other signs
    r"\b(?:[Ii]s|[Aa]re|[Ee]quals?)\s*:?\s+A\s+\S+\s+B\s+\S+\s+C\s+\S+(?:\s+D\s|\s*$)",
    rf"[?.:)$\n]\s*\(?F[).]{_SAYS}[^?]*?\s\(?G[).]{_SAYS}[^?]*?\s\(?H[).]{_SAYS}",
    rf"{_BEFORE}[①Ⓐⓐ]{_SAYS}[^?]*?[②Ⓑⓑ]{_SAYS}[^?]*?[③Ⓒⓒ]{_SAYS}",
    r"\(1\)[^?]*?\\q?quad\s*\(2\)[^?]*?\\q?quad\s*\(3\)",
    # words
    r"(?:\n|[.?!:]\s+)\**(?:[Aa]nswer )?(?:[Cc]hoices|Options|OPTIONS)\**:",
    r"\b(?:[Cc]hoose|[Ss]elect|[Tt]ick|[Mm]ark|[Pp]ick) (?:the )?(?:correct|right|best|true) "
    r"(?:answer|option|choice|alternative|statement)|\b(?:[Yy]our|[Tt]he) options are:|\b[Nn]umber of the correct",
    r"\b(?:[Ww]hich|[Oo]ne) of the (?:options|choices|alternatives|answers) (?:below|given|listed)",
)
# small letters and numbers, which number parts and conditions too
_SMALL_OPTIONS = (
    rf"(?:[?_]\.?|\(\s*\)\.?|\b(?:is|are"
    rf"|equals):?)\s*\$?\(?1[).]\s{_SAYS}[^?]*?\s\(?2[).]\s{_SAYS}[^?]*?\s\(?3[).]\s{_SAYS}",
    rf"{_BEFORE}\(?a[).]{_SAYS}[^?]*?\s\(?b[).]{_SAYS}[^?]*?\s\(?c[).]{_SAYS}",
    rf"[?.:]\s*\(i\){_SAYS}[^?]*?\s\(ii\){_SAYS}[^?]*?\s\(iii\){_SAYS}",
)
_MAY_OFFER = (
    r"B\s*[).}:\]>、．：]|B\s+[^\n ]+\s+C\s|G\s?[).]|b\s?\)|b\.\s|2[).]\s|\(ii\)|[②Ⓑⓑ]|quad\s*\(2"
    r"|\\item|\n\s*[-*•]\s|\nB "
    r"|hoices|ptions|OPTIONS|hoose|elect|[Tt]ick |[Mm]ark |[Pp]ick |correct|alternatives|answers"
)
_LARGE = rf"(?s)({'|'.join(_OPTIONS)})"
_SMALL = rf"(?s)({'|'.join(_SMALL_OPTIONS)})"

_TO_LAST_SIGN = rf"(?s)^.*(?:[(\[\s$*{{?]|^)(?:[A-Ka-k1-5]\s*[).\]}}:、．]|[①-⑨Ⓐ-Ⓚⓐ-ⓚ]|\(i+\)){_SAYS}"
_ASKED = (
    rf"\?|(?i:which|what|how|\b{IMPERATIVE}\b"
    r"|\b(?:is|are|equals?|be)(?: (?:equal|closest|nearest|about|always|divisible))?:?\s*$)"
)
_ASKED_BEHIND = (
    rf"[^?\s][^?]*[A-Za-z0-9$)]\?|(?:[.!?$);,:]\s*|\n\s*|^)(?:and |then )?(?i:{IMPERATIVE}|how many|how much|what)\b"
)

_COUNTS_STATEMENTS = (
    r"how many (?:of )?(?:the |these )?(?:following )?(?:[a-z]+ )?(?:statements|propositions|claims|assertions"
    r"|conditions|following)"
)
_CONDITION = r"\b(?:such that|so that|satisf[a-z]+|holds?|conditions?|properties|property|rules?|operations?|axioms?)\b"
# small letters and numbers count conditions that follow in the same sentence, capital ones those right behind a colon
_CONDITIONS = {_SMALL: rf"{_CONDITION}[^?.]*$", _LARGE: rf"{_CONDITION}(?: [a-z]+)?(?: [a-z]+)?\s*$"}
_BEGINS = {_SMALL: r"^[:.\s]", _LARGE: "^:"}
_SECOND_LETTER = r"B\s*[).\]}:、．]"
_OTHER_STATEMENTS = r"[\s(](?:I{1,3}|[1-3])[).]|[①②③]"


def multiple_choice(filters: Filters) -> pl.Expr:
    r"""The answer stands in the question, and is often its letter only.

    drops: What is 3 + 4? A) 5 B) 7
    drops: What is 3 + 4? (A) 5 (B) 6 (C) 7 (D) 8
    drops: What is 3 + 4?¶A. 5¶B. 6¶C. 7 => C
    drops: What is 3 + 4? $\textbf{(A)}\ 5 \qquad \textbf{(B)}\ 6 \qquad \textbf{(C)}\ 7$
    drops: Which of the following is prime?¶(A) 4¶(B) 6¶(C) 7
    drops: What is 2+3? A. 4 B. 5 C. 6 D. 7
    drops: Which value solves $x+2=5$?(A) 4 (B) 3
    drops: The value of $2\cdot 3$ is (A) 4 (B) 5 (C) 6
    drops: If 3 + 4 = n, then n equals: A: 5, B: 6, C: 7, D: 8
    drops: The sum of $3$ and $4$ (A) 5 (B) 6 (C) 7 (D) 8 (E) 9 (F) 10 (G) 11
    drops: What is 3 + 4? a) 5 b) 6 c) 7 d) 8
    drops: What is 3 + 4? (1) 5 (2) 6 (3) 7 (4) 8
    drops: What is 3 + 4? F) 5 G) 6 H) 7 J) 8
    keeps: Triangle A has an area of 5, triangle B of 7 and triangle C of 9. What is their sum?
    keeps: The circles (A), (B) and (C) touch. What is their area?
    keeps: Walk from home (point A) to school (point B), then to the park (point C). How far is it?
    keeps: What is P(A) + P(B) + P(C)?
    keeps: How many of the following statements are true? (A) 2 is even. (B) 3 is even. (C) 4 is even. => 2
    keeps: It goes from A. Then it meets B. Then it stops at C. How far is it?
    keeps: A. Smith, B. Jones and C. Brown share 50 dollars. How much does each get?
    keeps: Ann (A) has 5 nuts, Ben (B) has 6, Cleo (C) has 7 and Dan (D) has 8. How many have they?
    keeps: A function is good if: (A) it is even; (B) it is 0 at 1; (C) it is bounded. Find a good one.
    keeps: Find all functions such that: a) f(0) is 1, b) f is even, c) f is a polynomial of degree 2 at most.
    """
    if not filters.multiple_choice:
        return KEEPS
    return apply_where(pl.col("question"), lambda text: text.str.contains(_MAY_OFFER), _offers_its_answers)


def _offers_its_answers(text: pl.Expr) -> pl.Expr:
    large = apply_where(text, lambda some: some.str.contains(_LARGE), lambda some: _by_what_is_asked(some, _LARGE))
    small = apply_where(text, lambda some: some.str.contains(_SMALL), lambda some: _by_what_is_asked(some, _SMALL))
    return pl.coalesce(large, small)


def _by_what_is_asked(text: pl.Expr, pattern: str) -> pl.Expr:
    options = text.str.extract(pattern)
    before = text.str.splitn(options, 2).struct[0]
    behind = text.str.replace(_TO_LAST_SIGN, "")
    offers_counts = text.str.contains(_OTHER_STATEMENTS) & options.str.contains(_SECOND_LETTER)
    counts = text.str.to_lowercase().str.contains(_COUNTS_STATEMENTS) & ~offers_counts
    asked_before = before.str.contains(_ASKED) | options.str.contains(r"^\?|[Ww]hich")
    listed = options.str.contains(_BEGINS[pattern]) & ~before.str.contains("[Ww]hich (?:one )?of")
    conditions = listed & before.str.to_lowercase().str.contains(_CONDITIONS[pattern])
    other = counts | conditions | (behind.str.contains(_ASKED_BEHIND) & ~asked_before)
    return pl.format("the question offers its answers ({})", quoted(pl.when(~other).then(options)))
