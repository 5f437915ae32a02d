r"""Questions that one final answer in a box does not settle: of several parts, for a proof, for a yes or no.

The signals are big-math's (Albalak et al. 2025): multi-part, proof, true or false, yes or no, multiple choice
(choices.py), hyperlinks (references.py).

All of them err towards keeping: a good problem that goes is lost in silence, an unfit one that stays is one of many.
"""

import polars as pl

from ernie_pipeline.data.filter.reasons import KEEPS, found
from ernie_pipeline.data.normalize.masked import Step, apply_where
from ernie_pipeline.recipe.sections import Filters

LOWER = pl.col("question").str.to_lowercase()

IMPERATIVE = (
    r"(?:find|determine|calculate|compute|evaluate|solve|simplify|factor(?:i[sz]e)?|express|expand|convert|estimate)"
)
# no words that rules and conditions begin with: "(i) draw two cards", "(ii) when x > 0"
_ASKS = (
    rf"(?:{IMPERATIVE}|explain|describe|prove|show|verify|deduce|sketch|state|write down"
    r"|how (?:many|much|long|far|old|fast|often|large|big|tall|high)|what|why|who|for (?:which|what)|is (?:it|there)"
    r"|are there|does|can (?:it|one|you)|in how many|at what|by (?:what|how much))\b"
)
_CLAUSE = (
    r"(?:(?:if|when|for|given|suppose|assume|assuming|let|under|using|by|with|after|hence|then|also|now|on|in|at)\b"
    r"[^.?;\n]*?[\s,])?"
)
_BEFORE_PART = r"(?:^|[.:;?!,$*\n]\s*|\.\$\s*|\\[\])]\s*)[*#]*(?:(?:part|question)\s+)?"
_SIGNS = (("a", "b"), ("i", "ii"), ("1", "2"))


def _part(sign: str) -> str:
    """A part's sign, and the word that asks: "(a) Find", or "a. Find" at the start of a line."""
    lined = rf"\n\s*[*#]*(?:(?:part|question)\s+)?{sign}\.|\b(?:part|question) {sign}[.:]"
    told = rf"\n\s*[*#]*[\[(]?{sign}[\]).][^\n]*?[.,:;$]\s+{_ASKS}"
    roman = rf"|(?:^|[.;:]\s+){sign}\.\s+{_ASKS}" if "i" in sign else ""
    return rf"(?:(?:{_BEFORE_PART}[\[(]?\s?{sign}\s?[\])]|{lined})[.:*\s]*{_CLAUSE}{_ASKS}|{told}{roman})"


# each alternative: the first part's sign and word, then the second's
_MULTI_PART = "|".join(
    [rf"(?:^\s*\**{one}\.[.*\s]*{_ASKS}|{_part(one)}).*?{_part(two)}" for one, two in _SIGNS]
    + [r"①\s*" + _CLAUSE + _ASKS + r".*?②\s*" + _CLAUSE + _ASKS]
)
_MULTI_PART = rf"(?s)({_MULTI_PART})"
# find: (a) the area; (b) the perimeter
_PART_OF_LIST = r"[.:*\s]*(?:\$|\\[(\[]|(?:the|its|an?|all|how|when|where|if|[a-z0-9]+ed)\s)"
_LIST_OF_PARTS = "|".join(
    rf"\b{IMPERATIVE}\b[^.?!()]*?[\s:.]\(?{one}\){_PART_OF_LIST}.*?[\s;,.:$]\(?{two}\){_PART_OF_LIST}"
    for one, two in _SIGNS
)
_LIST_OF_PARTS = rf"(?s)({_LIST_OF_PARTS})"
_CONDITIONS = (
    r"\bsystem\b|such that|satisf|condition|propert|\brules?\b|\bif\b|where|\bwith\b|between|given"
    r"|\bwhich\b|\bby\b|using|until"
)
_SECOND_PART = r"(?:b|ii|2)\s?[).:\]]|②"

_BEFORE_COMMAND = r"(?:^|[.:;,?!$)\]]\s*|\n\s*|\\[\])]\s*|\b(?:then|hence|thus|and|please|also|now|or|so)\s+)"
_NO_COMMAND = (
    r"\b(?:can|could|may|might|would|will|must|cannot|not|who|they|we|you|i|he|she|it|that|which|one|to|a|the|this"
    r"|each|every|tv|[a-z0-9]+ing)\s+(?:also\s+|easily\s+|now\s+)?(?:show|verify|demonstrate|explain)\b"
)
_ASKED_TO = r"\b(?:required|asked|needed|necessary|have|is|are) to (?:show|verify|demonstrate)\b"
_OF_A_PROOF = (
    r"(?:disprove|verify|demonstrate|establish|deduce|conclude|justify|argue|check|confirm|derive|infer)"
    r"(?: or disprove)?(?: (?:also|further|directly|by induction),?)?(?: (?:that|the|why)\b| ?[$\\])"
    r"|(?:explain|describe)\b[^.?!]*?\b(?:why|how)\b"
    r"|(?:give|write|provide|present|construct|find) (?:a|an|the) (?:[a-z0-9]+ )?proof\b"
)
_SHOWS_WORK = (
    r"\bshow(?:ing)? (?:me |us |all |your |the |each |full |every |complete |any )*(?:work|step"
    r"|working|calculation|reasoning|process|solution|answer|result|method)"
)
_PROOF = (
    rf"(^\W*proof that\b|\bbe prove[dn]\b|\b(?:prove|disprove)\b(?: or disprove\b)?(?: that\b)?"
    rf"|\basked-to-show\b|{_BEFORE_COMMAND}(?:show\b(?: that\b)?|{_OF_A_PROOF})"
    r"|(?:^|[.!:]\s+|\n\s*)why (?:is|are|does|do|can|must|should|has|have|cannot|can't|will|was)\b)"
)
# a question for a value stands beside it: that value is the answer
_ASKS_FOR_A_VALUE = (
    rf"\?|{_BEFORE_COMMAND}(?:(?:further(?:more)?|then|also|hence),? )?(?:{IMPERATIVE}|state (?:the|it)"
    rf"|(?:give|state) (?:all|that|this|its|the value|your answer)"
    r"|how (?:many|much)|what (?:is|are))\b"
)
_NO_VALUE = (
    r"\bfind a proof\b|\(\s*hint\b[^)]*\)|\bhint:[^.]*|\b(?:why|can you (?:prove|show|explain)"
    r"|do you see (?:why|how))\b[^?]*\?"
)

_YES_NO = r"^(?:\\(?:text|textbf|mathrm|textit|mathbf|mbox)\s*\{)?[\s(\"'*]*(yes|no|true|false)\s*(?:$|[.,;:!})\"'*])"


def multi_part(filters: Filters) -> pl.Expr:
    r"""Several questions in one have several answers, and the row gives one of them.

    drops: Let $f(x) = x^2$. (a) Find $f(3)$. (b) Find $f(4)$. => 9
    drops: A car drives 60 km in an hour.¶a) How far does it drive in two hours?¶b) What is its speed?
    drops: 1. Find the sum of 3 and 4.¶2. Find their product.
    drops: Let n be prime. (i) Determine n mod 2; (ii) determine n mod 3.
    drops: A die is rolled. **Part (a)** What is the chance of a six? **Part (b)** How many rolls are needed?
    drops: Let $f(x) = x^2 + ax$. (1) When $a = 1$, find the least value of f. (2) If f is even, find $a$.
    drops: A square has sides of 3. Find: (a) the area; (b) the perimeter.
    drops: Evaluate (a) $2^3$; (b) $3^2$.
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
    return apply_where(LOWER, _has(_SECOND_PART), _has_parts)


def proof(filters: Filters) -> pl.Expr:
    r"""A proof cannot be compared with a final answer. Where a value is asked for as well, the row stays.

    drops: Prove that $\sqrt{2}$ is irrational.
    drops: Let $n$ be an integer. Show that $n^2 + n$ is even. => n(n+1)
    drops: Let $a > b$, then prove that $a + 1 > b$.
    drops: Let $a,b>0$ with $ab=2$, prove $a+b\ge 2\sqrt{2}$.
    drops: Prove or disprove that every such number is odd. => prove
    drops: If \(a = b\), demonstrate that \(b = a\).
    drops: Explain why the sum of two odd numbers is even.
    drops: Show $DE \parallel BC$ in the triangle $ABC$.
    drops: It is required to prove the equality of the two segments that one can find in this way.
    drops: Why is the product of two consecutive numbers even?
    keeps: Find the least $n$. Show that your answer is the least.
    keeps: Find $x$ and show your work.
    keeps: Three fifths of 20, plus 1. Show all steps.
    keeps: How many pages must she read to improve that record?
    keeps: She wants to show that she can run 12 km. Compute the time she needs.
    keeps: The show that she sees ends at 9:00, 2 hours after its start. When did it start?
    keeps: Prove that the sum is constant and find it.
    keeps: One can prove that $x$ is prime. State it.
    """
    if not filters.proof:
        return KEEPS
    return apply_where(
        LOWER,
        _has(
            "prove|show|demonstrate|verify|explain|why|proof|establish|deduce|justify|argue|check|confirm|derive|infer"
        ),
        _asks_for_a_proof,
    )


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


def _has(pattern: str) -> Step:
    """Cheap, and true for all texts that the dear patterns match."""
    return lambda text: text.str.contains(pattern)


def _has_parts(text: pl.Expr) -> pl.Expr:
    reason = "the question has several parts ({})"
    listed = text.str.extract(_LIST_OF_PARTS)
    listed = pl.when(~listed.str.extract(r"(?s)^(.*?)[(]?(?:a|i|1)\)").str.contains(_CONDITIONS)).then(listed)
    return pl.coalesce(found(text, _MULTI_PART, reason), found(listed, "(?s)^(.*)$", reason))


def _asks_for_a_proof(text: pl.Expr) -> pl.Expr:
    asked = text.str.replace_all(_ASKED_TO, "asked-to-show")
    commands = asked.str.replace_all(_NO_COMMAND, " ").str.replace_all(_SHOWS_WORK, " ")
    values = text.str.replace_all(_NO_VALUE, ".").str.contains(_ASKS_FOR_A_VALUE)
    return found(pl.when(~values).then(commands), _PROOF, "the question asks for a proof ({})")
