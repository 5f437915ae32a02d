"""The artifact `math_split`: from raw rows by way of bare answers, filters and chat template to the division."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from ernie_pipeline.data.answers import with_answer
from ernie_pipeline.data.filters import FILTERS, apply_filters
from ernie_pipeline.data.parquet import write_table
from ernie_pipeline.data.split import split_rows
from ernie_pipeline.data.template import chat_rows, drop_long
from ernie_pipeline.recipe import Filters, Split

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class SplitTables:
    """The split. `train` and `eval` have the same columns:

    `row_id`, `line`, `prompt`, `question`, `expected_answer`, `answer`, `completion`, `prompt_text`,
    `completion_text`, `tokens`. `dropped`: `line`, `question`, `expected_answer`, `filter`, `reason`, by line.
    `counts`: rows dropped by each filter in the filters' order, with zeros.
    """

    train: pl.DataFrame
    eval: pl.DataFrame
    dropped: pl.DataFrame
    counts: dict[str, int]


def write_split(
    raw: Path, out: Path, filters: Filters, split: Split, tokenizer: "PreTrainedTokenizerBase"
) -> SplitTables:
    """Write the split of the artifact `raw`: `train.parquet` and `eval.parquet`, and below `reports/` what was dropped.

    A row's line in the source stands in `reports/lines.parquet` alone: a row that moved is still the same row.
    """
    tables = make_split(pl.read_parquet(raw / "rows.parquet"), filters, split, tokenizer)
    reports = out / "reports"
    reports.mkdir()
    write_table(tables.train.drop("line"), out / "train.parquet")
    write_table(tables.eval.drop("line"), out / "eval.parquet")
    write_table(tables.dropped, reports / "dropped.parquet")
    parts = {"train": tables.train, "eval": tables.eval}
    write_table(
        pl.concat([table.select("row_id", "line", part=pl.lit(part)) for part, table in parts.items()]),
        reports / "lines.parquet",
    )
    (reports / "counts.json").write_text(json.dumps(tables.counts, indent=1) + "\n")
    return tables


def make_split(rows: pl.DataFrame, filters: Filters, split: Split, tokenizer: "PreTrainedTokenizerBase") -> SplitTables:
    """The split of `read_rows`' rows; the same for any order of them. Raises `PipelineError` with too few rows."""
    kept, filtered = apply_filters(with_answer(rows), filters)
    kept, too_long = drop_long(chat_rows(kept, tokenizer), split.max_tokens)
    dropped = pl.concat([filtered, too_long]).sort("line")
    counts = _counts(dropped)
    train, held_out = split_rows(kept, split, counts)
    return SplitTables(train, held_out, dropped, counts)


def _counts(dropped: pl.DataFrame) -> dict[str, int]:
    found = dict(dropped["filter"].value_counts().iter_rows())
    names = [*(rule.__name__ for rule in FILTERS), "max_tokens"]
    return {name: found.get(name, 0) for name in names}
