"""Fields that are missing, broken, or of an odd length."""

import polars as pl

from ernie_pipeline.data.filter.reasons import quoted
from ernie_pipeline.data.normalize.answers import is_balanced
from ernie_pipeline.data.normalize.masked import apply_where
from ernie_pipeline.recipe.sections import Filters

_NOTHING = (
    r"(?:[\s.?_*…\u2013\u2014-]+"
    r"|[\[<({]\s*(?:your )?(?:final )?(?:answer|question|problem|solution)(?: here)?\s*[\])}>])"
)
_EMPTY_WORD = (
    r"(?:todo|tb[ad]|fixme|placeholder|nan|null|nil|answer|question|problem|solution|proof|proven|proved"
    r"|the proof|none (?:given|provided|found)|q\.?e\.?d|omitted"
    r"|(?:(?:the )?(?:answer|solution|final answer))?[ _-]?(?:is |was )?not[ _-]?(?:found|provided|given"
    r"|available|applicable|known|extracted|specified)"
    r"|no[ _-]?(?:answer|final[ _-]?answer|solution[ _-]?provided)|unknown|unanswerable|unanswered|unsolved"
    r"|missing|error"
    r"|(?:see )?(?:the )?proof(?: (?:above|below|is (?:given|shown|complete)|complete|omitted|required|needed"
    r"|problem|only))?"
    r"|(?:a )?proof[- ](?:based|question|problem)(?: (?:question|problem))?"
    r"|(?:please )?(?:see|refer to) (?:the )?(?:solution|answer|proof|explanation|above|below|attachment)s?"
    r"(?: (?:above|below))?"
    r"|(?:no|the|final) (?:final )?(?:answer|solution)(?: is)? (?:given|provided|available|found)"
    r"|(?:answer |solution )?not (?:available|provided|given)|to be (?:determined|announced|added)|lorem ipsum\b.*)"
)
_TEXT = r"(?:\\(?:text|textbf|mathrm|mbox|textit)\s*\{)?"
# N/A in capitals alone: "n/a" can be a fraction
_OPENED, _CLOSED = r"[\s\"'`*(\[<]*", r"[\s.:!\"'`*)\]>]*"
_PLACEHOLDER = rf"^{_OPENED}{_TEXT}\s*(?:N/A|N\.A\.|{_NOTHING}|(?i:{_EMPTY_WORD}))[\s.:!]*\}}?{_CLOSED}$"
_PLACEHOLDER_BYTES = 60
_NONE = rf"^{_OPENED}{_TEXT}\s*(?i:none|null|nothing)[\s.!]*\}}?{_CLOSED}$"
# where these ask, "none" can be the answer
_NONE_CAN_BE = (
    r"(?i)\b(?:which|who|how (?:many|much)|all|any|every|values?|solutions?|roots?|integers|numbers|pairs"
    r"|triples|points"
    r"|there|exists?|existence|for what|for which|zeros|asymptotes?|intercepts?|extrema|maxim\w+|minim\w+"
    r"|discontinuit\w+|solve|undefined)\b"
)


def missing_question(filters: Filters) -> pl.Expr:
    r"""Without a question there is nothing to answer.

    drops: => 7
    drops: ¶ => 7
    keeps: What is 3 + 4?
    """
    return pl.when(_blank("question")).then(pl.lit("the question is empty"))


def missing_answer(filters: Filters) -> pl.Expr:
    r"""Without an answer there is nothing to learn and nothing to grade.

    drops: What is 3 + 4? =>
    drops: What is 3 + 4? => \( \)
    keeps: What is 3 - 3? => 0
    """
    return pl.when(_blank("answer")).then(pl.lit("the answer is empty"))


def placeholder(filters: Filters) -> pl.Expr:
    r"""A field that only says that something belongs there. "None" can be an answer
    to some questions, and so can n/a, a fraction.

    drops: What is 3 + 4? => N/A
    drops: What is 3 + 4? => TODO
    drops: What is 3 + 4? => see solution
    drops: What is 3 + 4? => \text{Not available.}
    drops: What is 3 + 4? => [answer]
    drops: What is 3 + 4? => <your answer here>
    drops: What is 3 + 4? => ...
    drops: What is 3 + 4? => ???
    drops: [question]
    drops: TBD
    drops: What is 3 + 4? => notfound
    drops: For every n, the number $n^2 + n$ is even, is the claim. => proof
    drops: What is 3 + 4? => none
    keeps: How many such n are there? => None
    keeps: What is the slope of that line? => undefined
    keeps: What is 3 - 4? => -1
    keeps: What is the ratio of n to a? => n/a
    keeps: What is 3 - 7? => -4
    keeps: How often does he answer? => no solution
    keeps: What is the set of all such x? => [a, b]
    """
    asked = pl.when(pl.col("answer").str.contains(_NONE)).then("question")
    answer = pl.col("answer").str.contains(_PLACEHOLDER) | ~asked.str.contains(_NONE_CAN_BE)
    return pl.coalesce(
        pl.format("the question is a placeholder ({})", apply_where(pl.col("question"), _is_placeholder, quoted)),
        pl.format("the answer is a placeholder ({})", quoted(pl.when(answer).then("answer"))),
    )


def _is_placeholder(text: pl.Expr) -> pl.Expr:
    may_be = (text.str.len_bytes() < _PLACEHOLDER_BYTES) | text.str.contains("^\\s*[Ll]orem ipsum")
    short = pl.when(may_be).then(text)
    return short.str.contains(_PLACEHOLDER)


def unbalanced_answer(filters: Filters) -> pl.Expr:
    r"""A brace without its partner breaks the `\boxed{}` around the answer, so no grader could read it back.

    drops: What is 3 + 4? => 7}
    drops: What is one half? => \frac{1}{2
    keeps: What is one half? => \frac{1}{2}
    keeps: Where is f defined? => \left\{ x > 1 \right.
    """
    return pl.when(~is_balanced(pl.col("answer"))).then(pl.lit("the answer has a brace without its partner"))


def question_length(filters: Filters) -> pl.Expr:
    """Stubs are no problems, and very long texts are mostly several problems or a page's boilerplate.

    drops: 3 + 4 = ?
    keeps: 3 + 4 = how many?
    """
    return _outside("question", filters.min_question_chars, filters.max_question_chars)


def answer_length(filters: Filters) -> pl.Expr:
    """A long final answer is prose or a proof: no comparison of expressions can grade it.

    drops: Why is that? => Because each of the numbers up to ten, and each prime that divides it, has one below it \
of the same remainder on division by the sum of those primes, and so the number itself, and with it the sum of all \
numbers up to it, follows.
    keeps: What is 3 + 4? => 7
    """
    return _outside("answer", 0, filters.max_answer_chars)


def _blank(column: str) -> pl.Expr:
    return pl.col(column).is_null() | (pl.col(column).str.strip_chars() == "")


def _outside(column: str, lowest: int, highest: int) -> pl.Expr:
    length = pl.col(column).str.len_chars()
    few = pl.when(length < lowest).then(length)
    many = pl.when(length > highest).then(length)
    return pl.coalesce(
        pl.format(f"the {column} has {{}} characters, fewer than {lowest}", few),
        pl.format(f"the {column} has {{}} characters, more than {highest}", many),
    )
