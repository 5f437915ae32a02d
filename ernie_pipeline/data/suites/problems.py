"""A suite's problems as both models are asked them: `problems.parquet`."""

from pathlib import Path
from typing import TYPE_CHECKING

import dataframely as dy
import polars as pl

from ernie_pipeline.data.chat.template import chat_rows
from ernie_pipeline.data.normalize.answer_kinds import answer_kind
from ernie_pipeline.data.normalize.row_id import shuffle_keys, with_row_id
from ernie_pipeline.data.read.row_schema import MESSAGES
from ernie_pipeline.data.suites.read import SuiteRows
from ernie_pipeline.data.tables.contracts import checked, polars_schema
from ernie_pipeline.data.tables.parquet import write_table
from ernie_pipeline.recipe.suites import SuiteColumns
from ernie_pipeline.utils.json_file import write_json

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FILE = "problems.parquet"
ORDER_SEED = 0


class SuiteProblems(dy.Schema):
    """`problems.parquet`: `line` is that of a file of lines, else the row's number; `answer` the bare reference answer.

    `kind`: of the answer, one of `answer_kinds.KINDS`; `prompt_text`: the chat template's, up to where a model is to
    write. `row_id` stands for question, answer and prompt; the second of equal rows has "-2" behind it, and so on.
    """

    row_id = dy.String(regex="^[0-9a-f]{16}(-[0-9]+)?$", unique=True)
    line = dy.Int64(min=1)
    question = dy.String(min_length=1)
    answer = dy.String(min_length=1)
    kind = dy.String(min_length=1)
    level = dy.String(nullable=True)
    subject = dy.String(nullable=True)
    prompt_text = dy.String(min_length=1)


def write_problems(found: SuiteRows, columns: SuiteColumns, tokenizer: "PreTrainedTokenizerBase", out: Path) -> None:
    """Write the problems that `columns` asks for, in the set's order, and below `reports/` what was left out.

    Raises `PipelineError` where the chat template refuses a question.
    """
    problems = make_problems(found.rows, columns, tokenizer)
    write_table(checked(SuiteProblems, problems, "the suite"), out / FILE)
    (out / "reports").mkdir()
    counts = {"rows": found.rows.height, "problems": problems.height, "left_out": found.bad}
    write_json(out / "reports" / "counts.json", counts)


def make_problems(rows: pl.DataFrame, columns: SuiteColumns, tokenizer: "PreTrainedTokenizerBase") -> pl.DataFrame:
    """The table `SuiteProblems` of the rows, of the schema `read.ROWS`.

    With `columns.rows`, those whose hashes come first: which ones does not change when others come or go, but that one
    may take another one's place.
    """
    content = pl.concat_str(pl.lit(columns.instruction), "question")
    message = pl.struct(role=pl.lit("user"), content=content)
    rows = with_row_id(rows.with_columns(messages=pl.concat_list(message).cast(MESSAGES)))
    if columns.rows and columns.rows < rows.height:
        place = shuffle_keys(rows["row_id"], ORDER_SEED).alias("place")
        rows = rows.hstack([place]).sort("place", "line").head(columns.rows).sort("line").drop("place")
    rows = rows.with_columns(answer=pl.col("expected_answer"), kind=answer_kind(pl.col("expected_answer")))
    chats = chat_rows(rows, tokenizer)
    nth = pl.col("row_id").cum_count().over("row_id")
    own = pl.when(nth > 1).then(pl.format("{}-{}", "row_id", nth)).otherwise("row_id")
    return chats.with_columns(row_id=own).select(polars_schema(SuiteProblems).names())
