"""How a filter says what it found, and what becomes of the rows that it drops."""

import polars as pl

KEEPS = pl.lit(None, dtype=pl.String)
"""The verdict of a filter that the recipe switched off."""

SHOWN_CHARS = 60

DROPPED = ("line", "question", "expected_answer", "filter", "reason")
"""The columns of a row that a filter dropped."""


def found(text: pl.Expr, pattern: str, reason: str) -> pl.Expr:
    """`reason` with what group 1 of `pattern` matched in its `{}`; null where nothing did.

    One search a text. Write no `(?i)`, which is slower, but search the lower-cased text.
    """
    return pl.format(reason, quoted(text.str.extract(pattern)))


def quoted(text: pl.Expr) -> pl.Expr:
    """The text on one line, cut to `SHOWN_CHARS`, in quotes; null for null."""
    shown = text.str.strip_chars().str.replace_all(r"\s+", " ")
    cut = pl.when(shown.str.len_chars() > SHOWN_CHARS).then(shown.str.slice(0, SHOWN_CHARS) + "...").otherwise(shown)
    return pl.format('"{}"', cut)


def drop_rows(rows: pl.LazyFrame, name: str, reason: pl.Expr) -> tuple[pl.LazyFrame, pl.LazyFrame]:
    """`rows` parted by `reason`: (those where it is null, the others as rows of the ledger of drops)."""
    judged = rows.with_columns(filter=pl.lit(name), reason=reason)
    dropped = judged.filter(pl.col("reason").is_not_null()).select(DROPPED)
    return judged.filter(pl.col("reason").is_null()).drop("filter", "reason"), dropped
