"""Rows and files that the tests of the data stages read."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import polars as pl

from ernie_pipeline.data.normalize.answers import with_answer
from ernie_pipeline.data.read.reading import Reading, bad_table
from ernie_pipeline.data.read.row_schema import ROWS
from ernie_pipeline.recipe.sections import Source

PUBLISHED_SAMPLE = Path(__file__).parents[3] / "shared/data/nemotron_rl_openmathreasoning.sample.jsonl"


def record(question: Any = "What is 1 + 1, as a number?", answer: Any = "2") -> dict[str, Any]:
    """A row in Nemotron's schema."""
    prompt = f"Solve the following math problem.\n\n{question}"
    return {
        "responses_create_params": {"input": [{"role": "user", "content": prompt}]},
        "question": question,
        "expected_answer": answer,
    }


def records(count: int) -> list[dict[str, Any]]:
    """`count` rows with distinct questions; the answer is the row's number."""
    return [record(f"What is {i} + 0, as a number?", str(i)) for i in range(1, count + 1)]


def jsonl(rows: Iterable[Any]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def write(path: Path, content: bytes, max_bad_rows: int = 0) -> Source:
    """The source that reads `content` from `path`."""
    path.write_bytes(content)
    return Source(kind="file", path=str(path), max_bad_rows=max_bad_rows)


def read_rows(source: Source, version: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    """(rows, bad rows) of the source as whole tables."""
    chunks = list(Reading(source, version).chunks())
    return pl.concat([chunk.rows for chunk in chunks]), bad_table([row for chunk in chunks for row in chunk.bad])


def frame(pairs: Iterable[tuple[str | None, str | None]]) -> pl.DataFrame:
    """(question, answer) pairs as `read_rows` gives them, with the column `answer`."""
    rows = [
        (line, [{"role": "user", "content": question or ""}], question, answer)
        for line, (question, answer) in enumerate(pairs, start=1)
    ]
    return with_answer(pl.DataFrame(rows, schema=ROWS, orient="row"))
