# ruff: noqa: RUF001, RUF002 (letters of many languages)
r"""Questions that are not in English: told by their letters, else by a language detector (py3langid, offline).

A question is foreign when

- a fifth of its letters outside formulas, and at least three or all, are of a script that is neither Latin nor Greek,
  or are accented Greek (letters of formulas never are) or small Cyrillic ones in a word (lone and capital ones are
  often typed for Latin points and variables); or
- its prose, the words of two letters or more that are left when formulas, commands and points go, is likelier in
  another language by a margin that grows with its English words, and that is higher the fewer words it has.

Three English function words settle it, two in a short text: such a question is kept, whatever else stands in it. They
make up two fifths of English prose, so that few rows are left for the detector.

The margin is log P(prose, other) - log P(prose, English), divided by the square root of the prose's bytes. Measured on
GSM8K's training problems: none of 7,473 questions is dropped, and 5 of their 25,952 sentences alone ("Keith", "An
avocado costs $3."). Latin and such are no candidates: mathematics is full of it.
"""

from functools import cache
from math import sqrt

import polars as pl
from py3langid.langid import MODEL_FILE, LanguageIdentifier

from ernie_pipeline.data.filter.reasons import KEEPS, quoted
from ernie_pipeline.data.normalize.masked import apply_where
from ernie_pipeline.recipe.sections import Filters

_ENGLISH = """
    the and that which what how with from if then such there where when has have had each its this these they their
    his many much more most less than both every any your she he into does were would not only after before while
    who find given following number numbers value values solve compute evaluate calculate simplify express suppose
    between first two three four integer integers positive equation function largest smallest twice times years
    points length sides square circle
"""
"""Function words, and those of problems, that few other languages have: "all", "for", "is", "of" and "was" are Dutch,
Danish or German too."""

_LANGUAGES = (
    "en fr es ca gl pt it ro de nl af da no sv is fi et lv lt pl cs sk sl hr sr bs bg mk ru uk hu tr az sq eu cy ga "
    "id ms jv tl sw vi el eo"
)

_SHORT_ELSEWHERE = """
    calculer calculez calcule évaluer simplifier simplifie factoriser développer résoudre résous résolvez trouver
    trouvez déterminer déterminez combien dérivez calcular calcula calcule evaluar evalúe hallar halla halle
    resolver resuelve resuelva determinar simplificar simplifica simplifique factorizar factorice encontrar
    encuentra encuentre cuánto cuántos cuál resolva fatore fatorar encontre quanto quantos calcolare calcola
    risolvere risolvi semplificare semplifica determinare trovare trova quanti berechne berechnen bestimme bestimmen
    löse vereinfache ermittle wieviel bereken bepaal vind hoeveel beräkna beregn lös ange laske ratkaise oblicz
    rozwiąż izračunaj riješi vypočítejte řešte számítsd oldd calculați rezolvați hesapla hesaplayınız
    bulunuz wynosi hvad hvor hva
    vad regn derivera vereenvoudig beweise zeige berechnet factoriza dérive calcul hitung hitunglah tentukan tính
    giải tìm
"""
"""Commands and question words: of a formula and such a word, a detector has too little to go by."""

# a short question in English has one of these, or of the words above
_TERMS = """
    use find factor factorise factorize expand differentiate integrate convert determine rationalize rationalise
    reduce round write graph sketch plot show prove derivative integral limit sum difference product quotient
    remainder root roots zero zeros domain range inverse slope vertex area volume perimeter circumference radius
    diameter angle triangle matrix vector vectors determinant eigenvalue eigenvalues eigenvectors rank trace median
    mode mean variance probability ratio percent fraction decimal binary prime primes factors divisors multiple
    divisible gcd hcf lcm maximum minimum maximize minimize real complex general solution solutions differential
    series sequence term terms coefficient transform numerals polynomial polynomials equations system is are of to
    by for has was all per hour total sales cost price number symbol evaluate order degree
"""

_MARGIN = 3.0
_MARGIN_OF_SOME = 4.0
_MARGIN_OF_FEW = 6.0
_MARGIN_OF_NONE = 3.0
_MARGIN_OF_ENGLISH = 1.5
_ENOUGH_WORDS = 25
_FEWEST_ENGLISH = 8
"""One word in so many, if there are two."""
_FEWEST_TERMS = 3
"""One word in so many that an English text has, of which other languages have some, if there is an English one."""
_FEW_WORDS = 2
_SHORT_BYTES = 120
_FEWEST_LETTERS = 3
_SHORT_WORDS = 5


_ENGLISH_TERMS = frozenset((_ENGLISH + _TERMS).split())
_OFTEN_ENGLISH = _ENGLISH_TERMS | {"in", "an", "do", "on", "at", "it", "costs", "his", "her"}
_SHORT = frozenset(_SHORT_ELSEWHERE.split())


def _any_of(words: str) -> str:
    return rf"(?-u:\b)(?:{'|'.join(words.split())})(?-u:\b)"  # of ASCII letters, which is faster


_IS_ENGLISH = _any_of(_ENGLISH)
_TWO_ENGLISH = rf"(?s){_IS_ENGLISH}.*?{_IS_ENGLISH}"
_THREE_ENGLISH = rf"(?s){_IS_ENGLISH}.*?{_IS_ENGLISH}.*?{_IS_ENGLISH}"

_FORMULA = r"(?s)\$\$.*?\$\$|\$[^$]*\$|\\\(.*?\\\)|\\\[.*?\\\]"
_IN_FORMULA = r"\\(?:text|textbf|textit|textrm|mbox|mathrm)\s*\{[^{}]*\}"
_COMMAND = r"\\(?:begin|end|label|operatorname)\s*\{[^{}]*\}|\\\p{L}+"
_WORD = r"\p{L}[\p{L}\p{M}]+(?:['\u2019]\p{L}+)?"
_NO_WORD = (
    r"(?-u:\b)(?:sin|cos|tan|cot|sec|csc|log|ln|exp|lim|max|min|gcd|lcm|mod|arcsin|arccos|arctan|sqrt|frac|cm|km|mm|kg"
    r"|mr|mrs|ms|dr|st)(?-u:\b)"
)

_OTHER_SCRIPT = (
    r"[\p{L}--\p{Latin}--\p{Greek}--\p{Cyrillic}--\p{Common}--\p{Inherited}]|[\p{Cyrillic}&&\p{Ll}]{2,}"
    r"|\p{Greek}*[\x{386}\x{388}-\x{38A}\x{38C}\x{38E}-\x{390}\x{3AC}-\x{3AF}\x{3CC}-\x{3CE}]\p{Greek}*"
)


def non_english(filters: Filters) -> pl.Expr:
    r"""The recipes train and measure on English; other languages are too few here to learn from.

    drops: Trouver la somme de tous les entiers positifs inférieurs à 100 qui sont premiers.
    drops: ¿Cuál es el valor de $x$ si $2x + 3 = 7$?
    drops: Bestimme die Summe aller natürlichen Zahlen, die kleiner als 100 sind.
    drops: Hány olyan háromjegyű szám van, amely osztható 7-tel?
    drops: Find alle hele tal $n$ for hvilke $n^2 - 5n + 6 = 0$ gælder.
    drops: Simplifier $\frac{x^2-1}{x-1}$.
    drops: Найдите сумму всех чисел.
    drops: Να λυθεί η εξίσωση $x^2 - 5x + 6 = 0$.
    drops: 求 $x^2 + 2x + 1 = 0$ 的解。
    keeps: Find the general solution: $y'' + y' - y = x$.
    keeps: Convert 30 miles per hour to feet per second.
    keeps: Solve for y: 2y + 3 = 7
    keeps: Simplify $\sin^2 x + \cos^2 x$.
    keeps: Solve for o: 7*o + 4 = 137
    keeps: Let $\alpha, \beta, \gamma$ be the angles of a triangle in $\mathbb{R}^2$. Find $\alpha + \beta + \gamma$.
    keeps: La Paz and El Alto are 12 km apart. How far is it to walk there and back?
    keeps: Kolya, Vasya and Petya ran races; Kolya won 5, Vasya twice Kolya's wins. Vasya's wins?
    keeps: In triangle АВС, АВ = ВС = АС = 3 (Cyrillic letters). Area?
    keeps: The sign 日 is drawn with 4 lines. How many lines do 3 of them have?
    """
    if not filters.non_english:
        return KEEPS
    question = pl.col("question")
    by_letters = apply_where(question, _is_not_ascii, _other_script)
    by_words = apply_where(question, _has_little_english, _other_words)
    return pl.format("the question is not in English ({})", pl.coalesce(by_letters, by_words))


def _is_not_ascii(text: pl.Expr) -> pl.Expr:
    return text.str.len_bytes() > text.str.len_chars()


def _has_little_english(text: pl.Expr) -> pl.Expr:
    """Fewer than three English words, or two in a short text: nearly no row of an English source."""
    lower = text.str.to_lowercase()
    is_short = text.str.len_bytes() < _SHORT_BYTES
    return ~(lower.str.contains(_THREE_ENGLISH) | (is_short & lower.str.contains(_TWO_ENGLISH)))


def _other_script(text: pl.Expr) -> pl.Expr:
    """What shows that the letters are foreign; null if they are not."""
    foreign = text.str.extract_all(_OTHER_SCRIPT).list.join("").str.len_chars()
    plain = text.str.replace_all(_FORMULA, " ").str.replace_all(_COMMAND, " ")
    english = plain.str.extract_all(r"\p{Latin}{2,}").list.join("").str.len_chars()
    is_foreign = ((foreign >= 3) & (foreign * 4 >= english)) | ((foreign == 2) & (english == 0))
    return quoted(pl.when(is_foreign).then(text).str.extract(rf"(\p{{Lu}}?(?:{_OTHER_SCRIPT})+)"))


def _other_words(text: pl.Expr) -> pl.Expr:
    """The first words of a text whose prose is of another language; null if it is not."""
    in_formulas = text.str.extract_all(_FORMULA).list.join(" ").str.extract_all(_IN_FORMULA).list.join(" ")
    plain = pl.concat_str(text.str.replace_all(_FORMULA, " "), in_formulas, separator=" ")
    words = plain.str.replace_all(_COMMAND, " ").str.extract_all(_WORD).list.join(" ")
    return apply_where(words, _are_foreign, lambda some: quoted(some.str.extract(r"^(\S+(?: \S+){0,4})")))


def _are_foreign(words: pl.Expr) -> pl.Expr:
    no_points = words.str.replace_all(r"\b\p{Lu}+\b", " ")
    return no_points.str.to_lowercase().str.replace_all(_NO_WORD, " ").map_batches(_foreign, return_dtype=pl.Boolean)


def _foreign(prose: pl.Series) -> pl.Series:
    """Whether each text of words in lower case is in another language than English [Boolean]."""
    english = prose.str.count_matches(_IS_ENGLISH)
    return pl.Series([_is_foreign(*row) for row in zip(prose, english, strict=True)], dtype=pl.Boolean)


def _is_foreign(prose: str | None, english: int | None) -> bool:
    words = (prose or "").split()
    english = english or 0
    if len(set(prose or "")) < _FEWEST_LETTERS or (english >= 2 and english * _FEWEST_ENGLISH >= len(words)):
        return False
    if english and sum(word in _OFTEN_ENGLISH for word in words) * _FEWEST_TERMS >= len(words):
        return False
    if len(words) <= _SHORT_WORDS and not english and not _SHORT.isdisjoint(words):
        return True
    least = _MARGIN_OF_FEW if len(words) <= _FEW_WORDS else _MARGIN_OF_SOME if len(words) <= _SHORT_WORDS else _MARGIN
    if len(words) <= _SHORT_WORDS and _ENGLISH_TERMS.isdisjoint(words):
        least = _MARGIN_OF_NONE
    return _margin(" ".join(words[:_ENOUGH_WORDS])) >= least + _MARGIN_OF_ENGLISH * english


def _margin(prose: str) -> float:
    scores: dict[str, float] = dict(_detector().rank(prose))
    english = scores.pop("en")
    return (max(scores.values()) - english) / sqrt(len(prose.encode()))


@cache
def _detector() -> LanguageIdentifier:
    """Loaded where the first text needs it."""
    detector = LanguageIdentifier.from_pickled_model(MODEL_FILE)
    detector.set_languages(_LANGUAGES.split())
    return detector
