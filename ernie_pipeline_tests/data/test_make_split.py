import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ernie_pipeline.data.make_split import SplitTables, make_split
from ernie_pipeline.data.parquet import write_table
from ernie_pipeline.data.read import read_rows
from ernie_pipeline.data.source import resolve_source
from ernie_pipeline.errors import PipelineError
from ernie_pipeline.recipe import Filters, Source, Split
from ernie_pipeline_tests.data.samples import PUBLISHED_SAMPLE, jsonl, record, records, write


def raw_rows(tmp_path: Path) -> pl.DataFrame:
    long = record("How much is " + "1 + " * 200 + "1?", "201")
    text = jsonl([*records(60), record(answer=None), record("short"), *records(2), long])
    source = write(tmp_path / "rows.jsonl", text)
    return read_rows(source, resolve_source(source))[0]


def parquet_bytes(tables: SplitTables, tmp_path: Path) -> list[bytes]:
    path = tmp_path / "table.parquet"
    contents = []
    for table in (tables.train, tables.eval, tables.dropped):
        write_table(table, path)
        contents.append(path.read_bytes())
    return contents


def test_every_raw_row_is_in_one_table(tmp_path: Path, tokenizer: Any) -> None:
    rows = raw_rows(tmp_path)
    tables = make_split(rows, Filters(), Split(max_tokens=500), tokenizer)
    assert sorted([*tables.train["line"], *tables.eval["line"], *tables.dropped["line"]]) == rows["line"].to_list()
    assert {name: count for name, count in tables.counts.items() if count} == {
        "missing_answer": 1,
        "question_length": 1,
        "exact_duplicate": 2,
        "max_tokens": 1,
    }
    assert sum(tables.counts.values()) == tables.dropped.height


def test_train_and_eval_have_what_training_and_evaluation_read(tmp_path: Path, tokenizer: Any) -> None:
    tables = make_split(raw_rows(tmp_path), Filters(), Split(), tokenizer)
    assert tables.train.schema == tables.eval.schema
    assert {"row_id", "prompt", "completion", "prompt_text", "completion_text", "answer", "tokens"} <= set(
        tables.train.columns
    )


def test_shuffled_input_gives_the_same_bytes(tmp_path: Path, tokenizer: Any) -> None:
    rows = raw_rows(tmp_path)
    expected = parquet_bytes(make_split(rows, Filters(), Split(max_tokens=500), tokenizer), tmp_path)
    for seed in range(3):
        shuffled = rows.sample(fraction=1, shuffle=True, seed=seed)
        tables = make_split(shuffled, Filters(), Split(max_tokens=500), tokenizer)
        assert parquet_bytes(tables, tmp_path) == expected


def test_the_chunks_of_a_frame_do_not_reach_its_file(tmp_path: Path) -> None:
    whole = pl.DataFrame({"text": [f"row {i}" for i in range(50_000)]})
    chunked = pl.concat([whole[:333], whole[333:]], rechunk=False)
    assert chunked.n_chunks() == 2
    write_table(whole, tmp_path / "whole.parquet")
    write_table(chunked, tmp_path / "chunked.parquet")
    assert (tmp_path / "whole.parquet").read_bytes() == (tmp_path / "chunked.parquet").read_bytes()


def test_nothing_left_says_what_each_filter_dropped(tmp_path: Path, tokenizer: Any) -> None:
    with pytest.raises(PipelineError, match=r"0 rows are left .*missing_answer 1, question_length 64"):
        make_split(raw_rows(tmp_path), Filters(min_question_chars=5000), Split(), tokenizer)


def test_all_too_long_says_so(tmp_path: Path, tokenizer: Any) -> None:
    with pytest.raises(PipelineError, match=r"0 rows are left .*max_tokens 61"):
        make_split(raw_rows(tmp_path), Filters(), Split(max_tokens=1), tokenizer)


@pytest.mark.skipif(not PUBLISHED_SAMPLE.is_file(), reason="the published sample rows lie outside the repository")
def test_the_published_sample_rows_become_chats(tokenizer: Any) -> None:
    source = Source(kind="file", path=str(PUBLISHED_SAMPLE))
    rows, bad = read_rows(source, resolve_source(source))
    tables = make_split(rows, Filters(), Split(), tokenizer)
    assert bad.is_empty()
    assert (tables.train.height, tables.eval.height) == (4, 1)
    texts = pl.concat([tables.train, tables.eval]).sort("line")["completion_text"].to_list()
    assert texts[2] == " \\boxed{\\frac{333}{1997}}\n</s>"


def test_importing_the_room_imports_nothing_heavy() -> None:
    program = (
        "import sys, ernie_pipeline.data.make_split, ernie_pipeline.data.read, ernie_pipeline.data.parquet;"
        "heavy = {'torch', 'transformers', 'datasets', 'huggingface_hub', 'reasoning_gym'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
