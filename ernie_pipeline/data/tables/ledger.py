"""The ledger: every row of the source ends in exactly one place, and a dropped one with its filter and reason."""

from collections.abc import Mapping

import polars as pl

from ernie_pipeline.data.tables.contracts import Ledger, checked, polars_schema

BROKEN = "broken_row"
"""The filter's name of rows that the source holds and nobody could read."""


def make_ledger(parts: Mapping[str, pl.DataFrame], dropped: pl.DataFrame, bad_rows: pl.DataFrame) -> pl.DataFrame:
    """A `Ledger`, by line: `parts` has the rows (with `line`) of the places train, evaluation and unused.

    `dropped` has `line`, `question`, `expected_answer`, `filter` and `reason`; `bad_rows` is a `BadRows` table.
    Raises `PipelineError` when a line stands in two places.
    """
    schema = polars_schema(Ledger)
    broken = bad_rows.select("line", filter=pl.lit(BROKEN), reason=pl.concat_str("field", "problem", separator=" "))
    gone = pl.concat([dropped, broken], how="diagonal").with_columns(place=pl.lit("dropped"))
    kept = [rows.select("line", place=pl.lit(place)) for place, rows in parts.items()]
    table = pl.concat([*kept, gone], how="diagonal").select(schema.names()).cast(schema).sort("line")
    return checked(Ledger, table, "the split's ledger")


def places_of(ledger: pl.DataFrame) -> dict[str, int]:
    """How many rows ended in each place."""
    return dict(sorted(ledger["place"].value_counts().iter_rows()))


def unaccounted(ledger: pl.DataFrame, raw_lines: pl.Series, bad_lines: pl.Series) -> int:
    """How many rows of the source are not in the ledger exactly once, and rows of the ledger not in the source."""
    source = pl.concat([raw_lines, bad_lines]).to_frame("line").with_columns(balance=pl.lit(1))
    entries = ledger.select("line", balance=pl.lit(-1))
    balance = pl.concat([source, entries]).group_by("line").agg(pl.col("balance").sum())
    return balance.filter(pl.col("balance") != 0).height
