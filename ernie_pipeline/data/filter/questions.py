r"""Questions that one final answer in a box does not settle.

The signals are big-math's (Albalak et al. 2025): multi-part, proof, true or false, yes or no, multiple choice,
hyperlinks.

All of them err towards keeping: a good problem that goes is lost in silence, an unfit one that stays is one of many.
"""

import polars as pl

from ernie_pipeline.data.filter.reasons import KEEPS, found
from ernie_pipeline.data.normalize.masked import Step, apply_where
from ernie_pipeline.recipe.sections import Filters

LOWER = pl.col("question").str.to_lowercase()

# no words that rules and conditions begin with: "(i) draw two cards", "(ii) when x > 0"
_ASKS = (
    r"(?:find|determine|calculate|compute|evaluate|solve|simplify|factor|explain|describe|prove|show|verify|deduce"
    r"|how (?:many|much|long|far|old|fast)|what|why|for (?:which|what)|is (?:it|there)|are there|does"
    r"|can (?:it|one|you))\b"
)
_BEFORE_PART = r"(?:^|[.:;?!,$*\n]\s*|\.\$\s*)\**(?:part\s+)?"


def _part(sign: str) -> str:
    """A part's sign, and the word that asks: "(a) Find", or "a. Find" at the start of a line."""
    return rf"(?:{_BEFORE_PART}\(?{sign}\)|\n\s*\**{sign}\.)[.:*\s]*{_ASKS}"


# each alternative: the first part's sign and word, then the second's
_MULTI_PART = "|".join(
    rf"(?:^\s*\**{one}\.[.*\s]*{_ASKS}|{_part(one)}).*?{_part(two)}"
    for one, two in (("a", "b"), ("i", "ii"), ("1", "2"))
)
_MULTI_PART = rf"(?s)({_MULTI_PART})"
_SECOND_PART = r"(?:b|ii|2)[).]"

_PROOF = (
    r"(?:^|[.:;,?!$)\]]\s+|\n\s*|\\[\])]\s*|\b(?:then|hence|and|please|also)\s+)"
    r"((?:prove|disprove|show|demonstrate|verify)(?: or disprove)?"
    r"(?: (?:also|further|directly|by induction),?)? (?:that|the|why)\b)"
)
# "to show that" may stand in a story, but where one asks for a value as well, that value is the answer
_ASKS_FOR_A_VALUE = (
    r"\?|\b(?:find|determine|calculate|compute|evaluate|solve|simplify|express|how (?:many|much)|what (?:is|are))\b"
)

_YES_NO = r"^(?:\\(?:text|textbf|mathrm)\s*\{)?\s*(yes|no|true|false)\s*(?:$|[.,;:!}])"


def _option(letter: str) -> str:
    """An option's letter, and the first character of what it says."""
    return rf"(?:\(|\\(?:text|textbf|textrm|mathrm|mathbf|rm)\s*\{{\s*\(?){letter}\s*[.)}}]+[\s$:~\\}}]*[^\s,.;)]"


_OPTIONS = (
    # (A) ... (B) ... (C) ... from a line's start or a sentence's end on
    rf"(?:^|[.:?!$)\]]\s+|\n\s*)\$?{_option('A')}.*?[\s$]{_option('B')}.*?[\s$]{_option('C')}",
    # A) ... B) ... from a sentence's end on, with no bracket between that one of these could close
    r"(?:[.:?!$\]]\s+|\n\s*)A\)\s*[^\s()][^()]*\sB\)\s*[^\s()]",
    # A. ... B. ... C. at the start of lines
    r"\n\s*\**A[.:]\s[^\n]*\n\s*\**B[.:]\s[^\n]*\n\s*\**C[.:]\s",
)
_SECOND_OPTION = r"B\s*[).}:]"
_MULTIPLE_CHOICE = rf"(?s)({'|'.join(_OPTIONS)})"
_COUNTS_STATEMENTS = (
    r"how many (?:of )?(?:the |these )?(?:following )?(?:\w+ )?(?:statements|propositions|claims|assertions|conditions)"
)

_PICTURE = r"(?:figure|diagram|picture|image|drawing|illustration|photo(?:graph)?|sketch)s?"
# these are also things that problems are about: a graph's edges, a map from A to B, the graph below the x-axis
_CHART = r"(?:graph|table|chart|map)s?"
_LINK = r"(https?://\S+|\bwww\.\w+\.\w+|!\[[^\]]*\]\([^)]*\)?|<img\b|\\includegraphics\b)"
_REFERENCE = "|".join(
    (
        r"\b(?:shown|pictured|depicted|illustrated|drawn|given|indicated|marked|labell?ed|represented"
        r"|displayed) (?:in|on|by) "
        rf"(?:the|this) (?:(?:above|attached|accompanying|adjoining|adjacent|following) )?{_PICTURE}\b",
        rf"\b(?:see|refer to|consult|use) (?:the )?{_PICTURE} (?:below|above|at|on the (?:left|right))\b",
        rf"\b(?:attached|accompanying|adjoining) (?:{_PICTURE}|{_CHART})\b",
        rf"\b(?:the|this|following) {_PICTURE} (?:shown )?(?:below|above)\b",
        rf"\bthe {_CHART} (?:shown |given )?(?:below|above)(?:[.,:;)?]|$| (?:shows|gives|lists|contains)\b)",
        r"\bthe (?:figure|diagram|picture|drawing) (?:shown )?(?:at|to|on) the (?:left|right)\b",
        r"\bthe (?:following|above) (?:figure|picture|image|drawing|illustration|photo)s?\b",
        r"(?:^|[.?!]\s+)(?:in|from|as shown in) the (?:figure|diagram),",
        r"\b(?:in|see) fig(?:ure|\.) ?\d",
    )
)
_REFERENCE = f"({_REFERENCE})"
_MAY_REFER = (
    r"https?:|www\.|!\[|<img|graphics|fig|diagram|picture|image|drawing|illustrat|photo|sketch|graph|table|chart|map"
)
_CONTAINED = (
    r"\[asy\]|\\begin\{(?:tikzpicture|tabular|array|asy|picture|pmatrix|bmatrix|matrix)\}"
    r"|(?:^|\n)\s*\|[^\n]*\||\t|(?:\n[^\n]*\d[^\n]*){2}"
)
"""A picture as code, or a table: the text holds what it refers to."""


def multi_part(filters: Filters) -> pl.Expr:
    r"""Several questions in one have several answers, and the row gives one of them.

    drops: Let $f(x) = x^2$. (a) Find $f(3)$. (b) Find $f(4)$. => 9
    drops: A car drives 60 km in an hour.¶a) How far does it drive in two hours?¶b) What is its speed?
    drops: 1. Find the sum of 3 and 4.¶2. Find their product.
    drops: Let n be prime. (i) Determine n mod 2; (ii) determine n mod 3.
    drops: A die is rolled. **Part (a)** What is the chance of a six? **Part (b)** How many rolls are needed?
    keeps: Let f be a function. Find $f(a) + f(b)$ if $f (a) = 3$ and $f (b) = 4$.
    keeps: For which $x$ in the interval $(a, b)$ is it so?
    keeps: Find all functions such that (i) f(0) = 1 and (ii) f(x) is even.
    keeps: Numbers are good if: (a) they are odd; (b) they are prime. How many good numbers are below 20?
    keeps: In each move (1) draw two cards, then (2) write down their sum. What is the least sum?
    keeps: f is even: (i) when x > 0, f(x) = x; (ii) when x < 0, f(x) = -x. Find f(3).
    keeps: The first number is 1. Find the sum of it and of 2. What is it?
    keeps: He has 3 choices: (a) find a dog, or (b) buy one. How many days pass?
    """
    if not filters.multi_part:
        return KEEPS
    return apply_where(
        LOWER, _has(_SECOND_PART), lambda text: found(text, _MULTI_PART, "the question has several parts ({})")
    )


def proof(filters: Filters) -> pl.Expr:
    r"""A proof cannot be compared with a final answer. Where a value is asked for as well, the row stays.

    drops: Prove that $\sqrt{2}$ is irrational.
    drops: Let $n$ be an integer. Show that $n^2 + n$ is even. => n(n+1)
    drops: Let $a > b$, then prove that $a + 1 > b$.
    drops: Prove or disprove that every such number is odd. => prove
    drops: If \(a = b\), demonstrate that \(b = a\).
    keeps: Find the least $n$. Show that your answer is the least.
    keeps: How many pages must she read to improve that record?
    keeps: She wants to show that she can run 12 km. Compute the time she needs.
    keeps: Prove that the sum is constant and find it.
    keeps: One can show that $x$ is prime. State it.
    """
    if not filters.proof:
        return KEEPS
    return apply_where(LOWER, _has("prove|show|demonstrate|verify"), _asks_for_a_proof)


def yes_no(filters: Filters) -> pl.Expr:
    r"""A coin answers it right half of the time. The answer tells: not every "Is ...?" wants a yes.

    drops: Is 7 a prime? => Yes
    drops: Does every such n have a divisor? => \text{No}
    drops: True or false: 7 is even. => False.
    drops: Is there such a triangle? => Yes, for example 3, 4, 5
    keeps: Is 7 or 8 a prime? => 7
    keeps: Which x solve x = x + 1? => no solution
    keeps: How many answers are yes? => 7
    keeps: What is the set of all such n? => No such n exists
    """
    answer = pl.col("answer").str.to_lowercase()
    return found(answer, _YES_NO, "the answer is yes or no ({})") if filters.yes_no else KEEPS


def multiple_choice(filters: Filters) -> pl.Expr:
    r"""The answer stands in the question, and is often its letter only.

    drops: What is 3 + 4? A) 5 B) 7
    drops: What is 3 + 4? (A) 5 (B) 6 (C) 7 (D) 8
    drops: What is 3 + 4?¶A. 5¶B. 6¶C. 7 => C
    drops: What is 3 + 4? $\textbf{(A)}\ 5 \qquad \textbf{(B)}\ 6 \qquad \textbf{(C)}\ 7$
    drops: Which of the following is prime?¶(A) 4¶(B) 6¶(C) 7
    keeps: Triangle A has an area of 5, triangle B of 7 and triangle C of 9. What is their sum?
    keeps: The circles (A), (B) and (C) touch. What is their area?
    keeps: Walk from home (point A) to school (point B), then to the park (point C). How far is it?
    keeps: What is P(A) + P(B) + P(C)?
    keeps: How many of the following statements are true? (A) 2 is even. (B) 3 is even. (C) 4 is even. => 2
    keeps: It goes from A. Then it meets B. Then it stops at C. How far is it?
    """
    if not filters.multiple_choice:
        return KEEPS
    return apply_where(pl.col("question"), _has(_SECOND_OPTION), _offers_its_answers)


def reference(filters: Filters) -> pl.Expr:
    r"""What the text refers to, a link, a picture or a table, is not there: nobody can answer. Pictures as code stay.

    drops: How many triangles are there? See https://example.org/a.png
    drops: ![](a.png) How many triangles are there?
    drops: What is the area of the triangle shown in the figure?
    drops: What is the area of the shape in the diagram below?
    drops: In the figure, AB = 3 and BC = 4. Find AC.
    drops: The table below gives the prices. What is their sum?
    drops: Find $|x| + |y|$ as shown in the figure.
    drops: The table is at www.example.org/a.¶| 1 | 2 |
    keeps: What is the area of the triangle below? [asy] draw((0,0)--(1,0)); [/asy] As shown in the figure, it is right.
    keeps: She skates a figure of eight. How long is it?
    keeps: How many sides does a plane figure with 5 corners have?
    keeps: At the table on the left sit 5 people. How many legs are there?
    keeps: The graph of f is shifted by 3. What is its new zero?
    keeps: What is the area of the region given by the graph of f and bounded by the graph below the line y = 3?
    keeps: Consider the following graph: its vertices are 1 to 9, its edges join primes. How many edges has it?
    keeps: Let f be the following map: x is sent to x + 3. What is f(4)?
    keeps: There are 15 dogs in the picture that Tom draws, and 3 cats. How many animals are there?
    keeps: The table below gives the prices.¶| a | b |¶| 3 | 4 |¶What is their sum?
    """
    if not filters.reference:
        return KEEPS
    return apply_where(LOWER, _has(_MAY_REFER), _refers_to_what_is_absent)


def _has(pattern: str) -> Step:
    """Cheap, and true for all texts that the dear patterns match."""
    return lambda text: text.str.contains(pattern)


def _asks_for_a_proof(text: pl.Expr) -> pl.Expr:
    alone = pl.when(~text.str.contains(_ASKS_FOR_A_VALUE)).then(text)
    return found(alone, _PROOF, "the question asks for a proof ({})")


def _offers_its_answers(text: pl.Expr) -> pl.Expr:
    counts = text.str.to_lowercase().str.contains(_COUNTS_STATEMENTS)
    return found(pl.when(~counts).then(text), _MULTIPLE_CHOICE, "the question offers its answers ({})")


def _refers_to_what_is_absent(text: pl.Expr) -> pl.Expr:
    reason = "the question refers to what is not in it ({})"
    absent = pl.when(~text.str.contains(_CONTAINED)).then(text)
    return pl.coalesce(found(text, _LINK, reason), found(absent, _REFERENCE, reason))
