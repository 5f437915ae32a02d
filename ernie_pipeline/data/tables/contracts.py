"""The tables that pass between the assets: their columns and rules, checked where written and where read."""

from pathlib import Path

import dataframely as dy
import polars as pl

from ernie_pipeline.utils.errors import PipelineError, first_line

PLACES = ("train", "evaluation", "unused", "dropped")
"""Where a row of the source can end."""

MESSAGE = dy.Struct({"role": dy.String(), "content": dy.String()})


class RawRows(dy.Schema):
    """`raw_nemotron/rows.parquet`: every unbroken row. `line` is its line in a JSONL file, else its number."""

    line = dy.Int64(min=1, unique=True)
    messages = dy.List(MESSAGE, min_length=1)
    question = dy.String(nullable=True)
    expected_answer = dy.String(nullable=True)


class BadRows(dy.Schema):
    """`raw_nemotron/bad_rows.parquet`: the broken rows that were left out, each with its first problem."""

    line = dy.Int64(min=1, unique=True)
    field = dy.String(min_length=1)
    problem = dy.String(min_length=1)


class SplitRows(dy.Schema):
    """`math_split/train.parquet` and `eval.parquet`.

    `row_id` stands for question, answer and prompt; `answer` is bare, `kind` one of `kinds.KINDS`, `completion` that
    answer boxed; the texts are the chat template's.
    """

    row_id = dy.String(regex="^[0-9a-f]{16}$", unique=True)
    prompt = dy.List(MESSAGE, min_length=1)
    question = dy.String(min_length=1)
    expected_answer = dy.String(min_length=1)
    answer = dy.String(min_length=1)
    kind = dy.String(min_length=1)
    completion = dy.List(MESSAGE, min_length=1, max_length=1)
    prompt_text = dy.String(min_length=1)
    completion_text = dy.String(min_length=1)


class Ledger(dy.Schema):
    """`math_split/reports/ledger.parquet`: where each row of the source went. Texts stand only by what was dropped."""

    line = dy.Int64(min=1, unique=True)
    place = dy.String(check=lambda place: place.is_in(PLACES))
    filter_ = dy.String(nullable=True, min_length=1, alias="filter")  # Schema.filter is a method
    reason = dy.String(nullable=True, min_length=1)
    question = dy.String(nullable=True)
    expected_answer = dy.String(nullable=True)

    @dy.rule()
    def dropped_for_a_reason(cls) -> pl.Expr:
        """A filter and its reason stand by the dropped rows, and by no others."""
        dropped = pl.col("place") == "dropped"
        return (pl.col("filter").is_not_null() == dropped) & (pl.col("reason").is_not_null() == dropped)


def checked(schema: type[dy.Schema], table: pl.DataFrame, where: str) -> pl.DataFrame:
    """`table`, once it keeps to `schema`. Raises `PipelineError` naming `where`, the first bad row and its field."""
    if problems := _column_problems(schema, table.schema):
        raise PipelineError(f"{where} is no table of {schema.__name__}: {'; '.join(problems)}; build it again")
    if not schema.is_valid(table):
        failure = schema.filter(table).failure
        raise PipelineError(f"{where}: {_first_problem(schema, failure.details())}{_others(len(failure))}")
    return table


def read_checked(schema: type[dy.Schema], file: Path) -> pl.DataFrame:
    """The Parquet table `file`, once it keeps to `schema`; errors as `checked`."""
    try:
        table = pl.read_parquet(file)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise PipelineError(f"{file} is not a readable Parquet file ({first_line(error)}); build it again") from error
    return checked(schema, table, str(file))


def polars_schema(schema: type[dy.Schema]) -> pl.Schema:
    """The column names and types of `schema`."""
    return pl.Schema({name: column.dtype for name, column in schema.columns().items()})


def _column_problems(schema: type[dy.Schema], found: pl.Schema) -> list[str]:
    wanted = polars_schema(schema)
    return [
        *(f"column {name} is missing" for name in wanted if name not in found),
        *(f"column {name} is unknown" for name in found if name not in wanted),
        *(
            f"column {name} is {found[name]}, not {dtype}"
            for name, dtype in wanted.items()
            if name in found and found[name] != dtype
        ),
    ]


def _first_problem(schema: type[dy.Schema], details: pl.DataFrame) -> str:
    """ "line 7: question breaks min_length (it is '')", from the table that dataframely gives of the bad rows."""
    row = details.row(0, named=True)
    key = next(iter(schema.columns()))  # each table begins with the column that names its rows
    rule = next(name for name, verdict in row.items() if name not in schema.columns() and verdict == "invalid")
    column, _, broken = rule.partition("|")
    value = repr(row.get(column))
    shown = f" (it is {value[:80]}{'...' if len(value) > 80 else ''})" if broken else ""
    return f"{key} {row[key]}: {column} breaks {broken}{shown}" if broken else f"{key} {row[key]}: breaks {column}"


def _others(count: int) -> str:
    return f"; {count} rows are bad, build the table again" if count > 1 else "; build the table again"
