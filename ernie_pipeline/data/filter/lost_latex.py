"""LaTeX whose backslash was read as the escape of another character, as JSON and Python do with `\f` and `\t`."""

import polars as pl

from ernie_pipeline.data.filter.reasons import found
from ernie_pipeline.data.normalize.masked import apply_where
from ernie_pipeline.recipe.sections import Filters

_CONTROL = r"[\x00-\x08\x0B\x0C\x0E-\x1F\x7F-\x9F\x{FFFD}]"
"""All but the tab and the ends of lines, and the sign for bytes that were no text."""

# commands that begin with t, n, r, without that letter: such a tab or end of line is no white space
_AFTER_TAB = (
    r"(?:ext(?:bf|it|rm|tt|sf|style)?\s*\{|imes\b|heta\b|frac\b|riangle|herefore\b|ilde\b"
    r"|an\s*[({^\\]|an\s+[a-z0-9]\b|anh?\^|au\b)"
)
_AFTER_LINE = r"(?:eq\b|abla\b|otin\b|exists\b|mid\s*\\|eg\s*\\|ewline\b)"
_AFTER_RETURN = r"(?:ight\s*[)\]}|.\\>]|ightarrow\b|ho\b|angle\b|floor\b|ceil\b|m\s*\{)"
_AFTER_SPACE = rf"\t{_AFTER_TAB}|\n{_AFTER_LINE}|\r{_AFTER_RETURN}"
# in an answer, which has few lines and no tables
_IN_ANSWER = r"\t(?:o|an|op|anh|o\w+arrow)\b|\n(?:e|u|i|ot|mid|eg)\b|\r(?:ight|ho|angle)"
# what only a cut command looks like, whatever stood before it or was stripped
_REST = (
    r"(?:^|[^A-Za-z\\])(?:(?:[dt]?f?rac|sqrt|text|mathrm|binom|begin|overline|inom|qrt|egin|oxed|athrm|athbb|athbf|athcal|verline|peratorname|ext|extbf|extrm)\s*\{"
    r"|(?:imes|heta)\b|ight[)\]}])"
)
_CUT = rf"{_AFTER_SPACE}|{_REST}"
_MAY_BE_CUT = (
    rf"{_CONTROL}|[\t\n\r][a-z]|(?:^"
    rf"|[^A-Za-z\\])(?:[dt]?f?rac|sqrt|text|mathrm|binom|begin|overline|inom|qrt|egin|oxed|ath|verl|perat|ext|imes|heta|ight)"
)


def lost_latex(filters: Filters) -> pl.Expr:
    r"""A backslash that was read as an escape leaves a control character and the rest of a command: `rac{1}{2}`.

    drops: What is one half, written as a fraction? => ␌rac{1}{2}
    drops: What is one half, written as a fraction? => rac{1}{2}
    drops: What is $3 ␉imes 4$?
    drops: What is the side of the square? => 5␉ext{ cm}
    drops: Which x are allowed? => x¶eq 2
    drops: What is $\left(3 + ␌rac{1}{2}\right)$?
    keeps: Ann has¶3 nuts and␉Ben has 4. How many have they?
    keeps: What is $\frac{1}{2} \times \text{one half}$? => \frac{1}{4}
    keeps: For which x is it so? => x = 1¶x = 2
    keeps: Name the next of the three, in the order of the text: ext, theta, times, right. => 7
    """
    question, answer = pl.col("question"), pl.col("expected_answer")
    return pl.coalesce(_lost(question, "question", _CUT), _lost(answer, "answer", rf"{_CUT}|{_IN_ANSWER}"))


def _lost(text: pl.Expr, name: str, cut: str) -> pl.Expr:
    def reason(some: pl.Expr) -> pl.Expr:
        return pl.coalesce(
            found(some, rf"{_CONTROL}([^{_CONTROL[1:]}{{0,20}})", f"the {name} holds a control character, before {{}}"),
            found(some, rf"((?:{cut}).{{0,20}})", f"the {name} has lost the backslash of a command ({{}})"),
        )

    return apply_where(text, lambda some: some.str.contains(_MAY_BE_CUT), reason)
