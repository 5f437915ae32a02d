r"""One form for texts that say the same: what is left of a question when only its typesetting is ignored.

Ignored: the Unicode form (NFKC), the case of words, white space and LaTeX's spacing commands, the delimiters of
formulas (`$`, `\( \)`, `\[ \]`), double quotes, full stops and question marks, and `, ; : !` at the end of a word.
Kept: all that can change the mathematics, so operators, brackets, primes, numbers as they are written (`3.5`,
`1,000`, `1 000` and `1000` are four), a comma or `!` after a variable, a number or a command, and the case of a
letter that stands alone: `X` and `x` may be two variables (`A` and `a` may not: that is mostly the article).
"""

import polars as pl

from ernie_pipeline.data.normalize import spelling
from ernie_pipeline.data.tables.slices import slices_of

# a command as it stands, or the punctuation at the end of a word
_WORD_END = r"(\\\p{L}+)|(\p{L}{2})[,;:!]+(?:\s|$)"

# a number, a command, an escaped character, a word, an ellipsis, or any other character but what is ignored
_TOKEN = r"""\.?\d+(?:[.,]\d+)*|\\\p{L}+|\\[^\s\p{L}]|\p{L}+|\.{2,}|[^\s.?"\\]"""

# what remains of a text without these is its lone letters, and a "\" for each command that begins with a capital
_NO_LONE_LETTER = r"\\[a-z]+|\\\P{L}|\p{L}{2,}|[^\p{L}\\]+|[Aa]"

_COUNTED = "0123456789nomw"
"""Characters that no normalisation adds or takes: none occurs in what is ignored."""


def normalised(text: pl.Expr) -> pl.Expr:
    """The text's tokens in lower case, one space between them; the same for texts that differ in typesetting only.

    Idempotent. Of the lone letters' case it knows nothing: see `question_key`.
    """
    plain = _compatible(text).str.to_lowercase().str.replace_many(spelling.QUESTION, leftmost=True)
    tokens = plain.str.replace_all(_WORD_END, "$1$2 ").str.extract_all(_TOKEN)
    return tokens.list.join(" ")


def lone_letters(text: pl.Expr) -> pl.Expr:
    """The letters that stand alone, in their order and case, without the article: "Let X + x be a" gives "Xx"."""
    return _compatible(text).str.replace_all(_NO_LONE_LETTER, "")


def question_key(question: pl.Expr) -> pl.Expr:
    """The same for questions that say the same: `normalised` and `lone_letters`."""
    return pl.concat_str(normalised(question), lone_letters(question), separator="\n")


def alike(questions: pl.Series) -> pl.DataFrame:
    """The questions that say the same as another one: `position` [UInt32] in `questions`, and `same`, the group's key.

    Most questions differ in how often a few characters occur already; only the others are normalised.
    """
    question = pl.col("question")
    lowered = _compatible(question).str.to_lowercase()
    table = questions.alias("question").to_frame().with_row_index("position")
    counts = pl.concat([some.select(_counts(lowered)) for some in slices_of(table)])
    table = table.filter(counts.to_series().is_duplicated())
    table = table.with_columns(same=normalised(question)).filter(pl.col("same").is_duplicated())
    table = table.with_columns(same=question_key(question))
    return table.filter(pl.col("same").is_duplicated()).select("position", "same")


def _counts(text: pl.Expr) -> pl.Expr:
    """How often some characters occur, mixed into one number; that of another text may be the same."""
    counts = (text.str.count_matches(character, literal=True).cast(pl.UInt64) for character in _COUNTED)
    return pl.sum_horizontal(count * (31**power % 2**53) for power, count in enumerate(counts))


def _compatible(text: pl.Expr) -> pl.Expr:
    """Unicode's form NFKC, which pure ASCII already has."""
    is_ascii = text.str.len_bytes() == text.str.len_chars()
    return pl.when(~is_ascii).then(text).str.normalize("NFKC").fill_null(text)
