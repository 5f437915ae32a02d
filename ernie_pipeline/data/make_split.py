"""The artifact `math_split`: from raw rows by way of bare answers, filters and chat template to the division."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from ernie_pipeline.data.chat.template import chat_rows
from ernie_pipeline.data.chat.tokens import drop_long, with_tokens
from ernie_pipeline.data.decontaminate.overlap import BENCHMARKS, EVALUATION, decontaminate, references_of
from ernie_pipeline.data.decontaminate.weights import Source
from ernie_pipeline.data.dedup.near_duplicates import drop_near_duplicates
from ernie_pipeline.data.filter.filters import FILTERS, apply_filters
from ernie_pipeline.data.filter.verifiable import drop_unverifiable
from ernie_pipeline.data.normalize.answer_kinds import answer_kind
from ernie_pipeline.data.normalize.answers import with_answer
from ernie_pipeline.data.normalize.row_id import with_row_id
from ernie_pipeline.data.split.divide import Division, divide
from ernie_pipeline.data.tables.contracts import BadRows, RawRows, SplitRows, checked, polars_schema, read_checked
from ernie_pipeline.data.tables.ledger import BROKEN, make_ledger
from ernie_pipeline.data.tables.parquet import write_table
from ernie_pipeline.data.tables.profile import make_profile, profile_markdown, spread

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DROPPING = (
    BROKEN,
    *(rule.__name__ for rule in FILTERS),
    "unverifiable_answer",
    "max_tokens",
    "near_duplicate",
    BENCHMARKS,
    EVALUATION,
)
"""Everything that drops a row, in the order in which rows meet it."""

CHAT = ("line", "prompt", "completion", "prompt_text", "completion_text")
MEASURED_ROWS = 500
"""Of each part, whose tokens the profile counts: to tokenise every row takes longer than all the rest together."""


@dataclass(frozen=True)
class SplitTables:
    """The split. `train`, `eval` and `unused` have at least `line`, the first two also the columns of `SplitRows`.

    `dropped`: `line`, `question`, `expected_answer`, `filter`, `reason`.
    """

    train: pl.DataFrame
    eval: pl.DataFrame
    unused: pl.DataFrame
    dropped: pl.DataFrame

    def counts(self, broken: int = 0) -> dict[str, int]:
        """Rows dropped by each of `DROPPING`, in that order, with zeros."""
        return {**_counts(self.dropped), BROKEN: broken}


def write_split(
    raw: Path,
    out: Path,
    recipe: Any,
    references: pl.DataFrame,
    tokenizer: "PreTrainedTokenizerBase",
    cache: Path | None = None,
) -> None:
    """Write the split of the artifact `raw`: `train.parquet` and `eval.parquet`, and below `reports/` the ledger
    (`ledger.parquet`), the rows that each filter dropped (`counts.json`) and a profile (`profile.json`, `profile.md`).

    A row's line in the source stands in the ledger alone: a row that moved is still the same row. `recipe`,
    `references` and `cache` as for `make_split`. Raises `PipelineError`, see there, and for a table that breaks its
    contract.
    """
    bad_rows = read_checked(BadRows, raw / "bad_rows.parquet")
    tables = make_split(read_checked(RawRows, raw / "rows.parquet"), recipe, references, tokenizer, cache)
    counts = tables.counts(bad_rows.height)
    parts = {"train": tables.train, "evaluation": tables.eval, "unused": tables.unused}
    ledger = make_ledger(parts, tables.dropped, bad_rows)
    reports = out / "reports"
    reports.mkdir()
    with ThreadPoolExecutor(1) as writer:  # while the tokenizer is at work
        train, held_out = _contracted(tables.train), _contracted(tables.eval)
        files = {"train.parquet": train, "eval.parquet": held_out, "reports/ledger.parquet": ledger}
        written = [writer.submit(write_table, table, out / file) for file, table in files.items()]
        samples = (spread(part.select("prompt_text", "completion_text"), MEASURED_ROWS) for part in (train, held_out))
        tokens = [with_tokens(rows, tokenizer)["tokens"] for rows in samples]
        profile = make_profile(train, held_out, tokens, ledger, counts)
        for table_written in written:
            table_written.result()
    (reports / "counts.json").write_text(json.dumps(counts, indent=1) + "\n", encoding="utf-8")
    (reports / "profile.json").write_text(json.dumps(profile, indent=1) + "\n", encoding="utf-8")
    (reports / "profile.md").write_text(profile_markdown(profile) + "\n", encoding="utf-8")


def make_split(
    rows: pl.DataFrame,
    recipe: Any,
    references: pl.DataFrame,
    tokenizer: "PreTrainedTokenizerBase",
    cache: Path | None = None,
) -> SplitTables:
    """The split of `RawRows`; the same for any order of them.

    `recipe` needs the sections filters, near_duplicates, decontamination and split. `references` are the questions of
    the benchmark sets, see `load_benchmarks`; `cache` a file in which answers that math-verify has parsed are kept.
    Raises `PipelineError` with too few rows.
    """
    rows = with_row_id(rows)
    kept, filtered = apply_filters(with_answer(rows.drop("messages")), recipe.filters)
    kept = kept.with_columns(kind=answer_kind(pl.col("answer")))
    kept, unverifiable = drop_unverifiable(kept, recipe.filters, cache)
    chats = chat_rows(_with(kept, rows.select("line", "messages")), tokenizer)
    del rows  # each kept row is in `chats`
    chats, too_long = drop_long(chats, recipe.split.max_tokens, tokenizer)
    kept, chats = chats.select(kept.columns), chats.select(CHAT)  # what is judged, and what waits for the end
    kept, alike = drop_near_duplicates(kept, recipe.near_duplicates)
    source = Source.of(kept) if recipe.decontamination.enabled else None
    kept, contaminated = decontaminate(kept, references, recipe.decontamination, source=source)
    dropped = pl.concat([filtered, unverifiable, too_long, alike, contaminated])
    parts = _divide(kept, recipe, source, _counts(dropped))
    dropped = pl.concat([dropped, parts.dropped]).sort("line")
    return SplitTables(_with(parts.train, chats), _with(parts.evaluation, chats), parts.unused, dropped)


def _with(rows: pl.DataFrame, more: pl.DataFrame) -> pl.DataFrame:
    """`rows` with the columns that `more` has of the same lines."""
    more = more.rechunk()  # of lists in pieces, rows are gathered at forty times the cost
    return rows.join(more, on="line", how="left", maintain_order="left", validate="1:1")


def _divide(kept: pl.DataFrame, recipe: Any, source: Source | None, counts: dict[str, int]) -> Division:
    settings = recipe.decontamination
    if not (settings.enabled and settings.own_evaluation):
        return divide(kept, recipe.split, counts=counts)

    def apart_from(rows: pl.DataFrame, held_out: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
        return decontaminate(rows, references_of(held_out), settings, EVALUATION, source)

    return divide(kept, recipe.split, apart_from, counts)


def _contracted(table: pl.DataFrame) -> pl.DataFrame:
    """The columns of the contract, checked."""
    return checked(SplitRows, table.select(polars_schema(SplitRows).names()), "the split")


def _counts(dropped: pl.DataFrame) -> dict[str, int]:
    found = dict(dropped["filter"].value_counts().iter_rows())
    return {name: found.get(name, 0) for name in DROPPING}
