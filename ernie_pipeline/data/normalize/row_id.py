"""What a row is called, and its place in the order of a seed: from its content alone, wherever it stands."""

import hashlib

import numpy as np
import polars as pl

from ernie_pipeline.data.tables.slices import slices_of

ROW_ID_DIGITS = 16
SEPARATOR = "\0"
"""No field of a checked row holds a NUL, so that no two rows of other contents are joined to the same text."""


def with_row_id(rows: pl.DataFrame) -> pl.DataFrame:
    """`rows` with the column `row_id`: 16 hex digits that stand for question, expected answer and messages."""
    message = pl.concat_str(
        pl.element().struct.field("role"), pl.element().struct.field("content"), separator=SEPARATOR
    )
    fields = (pl.col("question"), pl.col("expected_answer"), pl.col("messages").list.eval(message).list.join(SEPARATOR))
    present = [(pl.lit("=") + field).fill_null("") for field in fields]  # so that null is not the empty text
    content = pl.concat_str(present, separator=SEPARATOR)
    ids = [_digest(text) for some in slices_of(rows) for text in some.select(content).to_series()]
    return rows.with_columns(pl.Series("row_id", ids, pl.String))


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=ROW_ID_DIGITS // 2).hexdigest()


def shuffle_keys(row_ids: pl.Series, seed: int) -> pl.Series:
    """A number for each id [UInt64]: sorted by it, rows are in a random order of `seed`. No row moves another.

    The mixing function is that of splitmix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators",
    OOPSLA 2014, with the constants of Vigna's public implementation.
    """
    start = int.from_bytes(hashlib.blake2b(str(seed).encode(), digest_size=8).digest(), "big")
    z = row_ids.str.to_integer(base=16, dtype=pl.UInt64).to_numpy() ^ np.uint64(start)
    z = z + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return pl.Series("place", z ^ (z >> np.uint64(31)), pl.UInt64)
