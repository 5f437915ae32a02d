r"""Questions that are not in English, known by their letters and commonest words: fast, and no model to load.

A text without its formulas' commands counts as foreign when

- a fifth of its letters, and at least three, are of a script that is neither Latin nor Greek, nor symbols; or
- it has six words or more and no English one among the list below; or
- it has four words or more, at most two English ones, and two or more function words of another language, more of
  those than English ones.

Function words make up about two fifths of English prose, and even a terse problem has "the", "of", "is" or "find", so
six words without any of some eighty are no English. The lists hold words among the commonest of their language that are
no words of another one here ("a", "on", "die", "son" stand in neither), and none that are names or symbols.
"""

import polars as pl

from ernie_pipeline.data.filter.reasons import KEEPS, quoted
from ernie_pipeline.data.normalize.masked import apply_where
from ernie_pipeline.recipe.sections import Filters

ENGLISH = """
    the of and that which what how with from if then is are find let such there where when has have each it its
    this these they many much given following number numbers value values solve compute evaluate calculate
    simplify answer sum all for be by between at first two three your her his she he was were determine state
    give only than into does will every any integer integers real positive equation function
"""

FOREIGN = """
    le les des une est dans que qui sont soit avec el los las del una uno cual cuál cuántos cuánto sea y el um
    uma qual quantos são não com seja il lo gli della che di è sono quanti der das und ist ein eine von mit sei
    wie viele het een van hoeveel jest się oraz ile dla liczba że ve bir bu için kaç ile olan yang dari adalah
    untuk dengan berapa jika của là và cho có với tính số để de la et pour trouver en por para con bestimme
    berechne
"""


def _any_of(words: str) -> str:
    return rf"\b(?:{'|'.join(words.split())})\b"


_FOREIGN_LETTER = r"[\p{L}--\p{Latin}--\p{Greek}--\p{Common}--\p{Inherited}]"
_COMMAND = r"\\(?:begin|end|label|operatorname)\s*\{[^{}]*\}|\\\p{L}+"
_WORD = r"\b\p{L}\p{Ll}+\b"  # no points and lengths such as AB
_NO_WORD = (
    r"\b(?:sin|cos|tan|cot|sec|csc|log|ln|exp|lim|max|min|gcd|lcm|mod|arcsin|arccos|arctan|sqrt|frac|cm|km|mm|kg)\b"
)


_IS_ENGLISH = _any_of(ENGLISH).replace(r"\b", r"(?-u:\b)")  # of ASCII letters, which is faster
_THREE_ENGLISH = rf"(?s){_IS_ENGLISH}.*?{_IS_ENGLISH}.*?{_IS_ENGLISH}"


def non_english(filters: Filters) -> pl.Expr:
    r"""The recipes train and measure on English; other languages are too few here to learn from.

    drops: Trouver la somme de tous les entiers positifs inférieurs à 100 qui sont premiers.
    drops: ¿Cuál es el valor de $x$ si $2x + 3 = 7$?
    drops: Bestimme die Summe aller natürlichen Zahlen, die kleiner als 100 sind.
    drops: Найдите сумму всех чисел.
    drops: 求 $x^2 + 2x + 1 = 0$ 的解。
    keeps: Simplify $\sin^2 x + \cos^2 x$.
    keeps: Solve for o: 7*o + 4 = 137
    keeps: Let $\alpha, \beta, \gamma$ be the angles of a triangle in $\mathbb{R}^2$. Find $\alpha + \beta + \gamma$.
    keeps: La Paz and El Alto are 12 km apart. How far is it to walk there and back?
    keeps: The sign 日 is drawn with 4 lines. How many lines do 3 of them have?
    """
    if not filters.non_english:
        return KEEPS
    question = pl.col("question")
    by_letters = apply_where(question, _is_not_ascii, _other_script)
    # three English words settle it for nearly every text
    by_words = apply_where(question, lambda text: ~text.str.to_lowercase().str.contains(_THREE_ENGLISH), _other_words)
    return pl.format("the question is not in English ({})", pl.coalesce(by_letters, by_words))


def _is_not_ascii(text: pl.Expr) -> pl.Expr:
    return text.str.len_bytes() > text.str.len_chars()


def _other_script(text: pl.Expr) -> pl.Expr:
    """What shows that the letters are foreign; null if they are not."""
    letters = text.str.replace_all(_COMMAND, " ").str.count_matches(r"\p{L}")
    foreign = text.str.count_matches(_FOREIGN_LETTER)
    is_foreign = (foreign >= 3) & (foreign * 5 >= letters)
    return quoted(pl.when(is_foreign).then(text).str.extract(rf"({_FOREIGN_LETTER}+)"))


def _other_words(text: pl.Expr) -> pl.Expr:
    """The first words of a text whose words are foreign; null if they are not."""
    prose = text.str.replace_all(_COMMAND, " ")
    lower = prose.str.to_lowercase()
    words = prose.str.count_matches(_WORD).cast(pl.Int32) - lower.str.count_matches(_NO_WORD).cast(pl.Int32)
    english = lower.str.count_matches(_any_of(ENGLISH))
    foreign = lower.str.count_matches(_any_of(FOREIGN))
    none = (words >= 6) & (english == 0)
    more = (words >= 4) & (foreign >= 2) & (foreign > english)
    return quoted(pl.when(none | more).then(prose).str.extract_all(_WORD).list.head(5).list.join(" "))
