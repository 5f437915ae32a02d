"""Dear work on the few texts that need it."""

from collections.abc import Callable

import polars as pl

Step = Callable[[pl.Expr], pl.Expr]


def apply_where(text: pl.Expr, needed: Step, work: Step, return_dtype: type[pl.DataType] = pl.String) -> pl.Expr:
    """`work` of the texts for which `needed` is true, null for the others.

    `pl.when` alone would do `work` for every row, and `needed` once for each time that `work` names its text.
    """

    def worked(texts: pl.Series) -> pl.Series:
        table = texts.alias("text").to_frame()
        mask = table.select(needed(pl.col("text")).fill_null(False)).to_series()
        some = table.filter(mask).select(work(pl.col("text")).cast(return_dtype)).to_series()
        return pl.repeat(None, len(texts), dtype=return_dtype, eager=True).scatter(mask.arg_true(), some)

    return text.map_batches(worked, return_dtype=return_dtype, is_elementwise=True)
