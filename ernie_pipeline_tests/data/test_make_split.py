import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ernie_pipeline.data.make_raw import write_raw
from ernie_pipeline.data.make_split import DROPPING, write_split
from ernie_pipeline.data.read.benchmark_sets import load_benchmarks, resolve_benchmarks
from ernie_pipeline.data.read.source import resolve_source
from ernie_pipeline.data.tables.parquet import write_table
from ernie_pipeline.recipe.load import parse_recipe
from ernie_pipeline.recipe.sections import Recipe, Source
from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline_tests.data.samples import PUBLISHED_SAMPLE, jsonl, record, records, write

SHORT_ROWS: dict[str, dict[str, Any]] = {"split": {"max_tokens": 500}}


def recipe_of(**sections: Any) -> Recipe:
    return parse_recipe(SHORT_ROWS | sections, where="test")


def rows_with_faults() -> list[Any]:
    long = record("How much is " + "1 + " * 200 + "1?", "201")
    return [*records(60), record(answer=None), record("short"), *records(2), long]


def raw_of(folder: Path, rows: list[Any], max_bad_rows: int = 0) -> Path:
    """The artifact `raw_nemotron` of these rows."""
    folder.mkdir(parents=True, exist_ok=True)
    return raw_from(folder, write(folder / "rows.jsonl", jsonl(rows), max_bad_rows))


def raw_from(folder: Path, source: Source) -> Path:
    raw = folder / "raw"
    raw.mkdir(parents=True)
    write_raw(source, resolve_source(source), raw)
    return raw


def split_of(raw: Path, tokenizer: Any, recipe: Recipe | None = None, name: str = "split") -> Path:
    """The artifact `math_split` of raw rows."""
    recipe = recipe or recipe_of()
    out = raw.parent / name
    out.mkdir()
    sets = recipe.benchmarks.sets
    write_split(raw, out, recipe, load_benchmarks(sets, resolve_benchmarks(sets) if sets else "none"), tokenizer)
    return out


def ledger_of(split: Path) -> pl.DataFrame:
    return pl.read_parquet(split / "reports" / "ledger.parquet")


def test_every_row_of_the_source_is_in_the_ledger_once(tmp_path: Path, tokenizer: Any) -> None:
    rows = [*rows_with_faults(), {"question": "no answer"}]
    split = split_of(
        raw_of(tmp_path, rows, max_bad_rows=1), tokenizer, recipe_of(split={"max_tokens": 500, "rows": 40})
    )
    ledger = ledger_of(split)
    assert ledger["line"].to_list() == list(range(1, len(rows) + 1))
    counts = json.loads((split / "reports" / "counts.json").read_text())
    assert list(counts) == list(DROPPING)
    assert {name: count for name, count in counts.items() if count} == {
        "broken_row": 1,
        "missing_answer": 1,
        "question_length": 1,
        "exact_duplicate": 2,
        "max_tokens": 1,
    }
    places = dict(ledger["place"].value_counts().iter_rows())
    assert places == {"dropped": 6, "train": 38, "evaluation": 2, "unused": 20}
    trained = ledger.filter(pl.col("place") == "train").height
    assert trained == pl.read_parquet(split / "train.parquet").height


def contents(split: Path) -> list[bytes]:
    return [(split / f"{part}.parquet").read_bytes() for part in ("train", "eval")]


def test_shuffled_rows_give_the_same_split_byte_for_byte(tmp_path: Path, tokenizer: Any) -> None:
    rows = [
        *rows_with_faults(),
        record("What is 7 + 0,  as a NUMBER?", "7"),
        record("What is 9 + 0, as a number?", "8"),
    ]
    expected = contents(split_of(raw_of(tmp_path / "0", rows), tokenizer))
    for number in (1, 2):
        shuffled = pl.Series(range(len(rows))).sample(fraction=1, shuffle=True, seed=number)
        assert contents(split_of(raw_of(tmp_path / str(number), [rows[i] for i in shuffled]), tokenizer)) == expected


def test_small_slices_give_the_same_split_byte_for_byte(
    tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = raw_of(tmp_path, rows_with_faults())
    whole = contents(split_of(raw, tokenizer))
    monkeypatch.setattr("ernie_pipeline.data.tables.slices.SLICE_ROWS", 7)
    assert contents(split_of(raw, tokenizer, name="sliced")) == whole


def test_another_file_format_gives_the_same_split_byte_for_byte(tmp_path: Path, tokenizer: Any) -> None:
    rows = records(60)
    expected = contents(split_of(raw_of(tmp_path / "lines", rows), tokenizer))
    parquet, packed = tmp_path / "rows.parquet", tmp_path / "rows.jsonl.gz"
    pl.DataFrame(rows).write_parquet(parquet)
    import gzip

    packed.write_bytes(gzip.compress(b"\n" + jsonl(rows)))
    for file in (parquet, packed):
        raw = raw_from(tmp_path / file.suffix, Source(kind="file", path=str(file)))
        assert contents(split_of(raw, tokenizer)) == expected


def test_rows_of_a_named_benchmark_are_dropped_with_the_words_they_share(tmp_path: Path, tokenizer: Any) -> None:
    benchmark = tmp_path / "benchmark.jsonl"
    stolen = "A lighthouse keeper counts forty ships before noon and thirty one after noon, how many in all?"
    benchmark.write_text(json.dumps({"question": f"Once more. {stolen}"}) + "\n")
    recipe = recipe_of(benchmarks={"sets": [str(benchmark)]})
    split = split_of(raw_of(tmp_path, [*records(60), record(stolen, "71")]), tokenizer, recipe)
    [dropped] = ledger_of(split).filter(pl.col("place") == "dropped").to_dicts()
    assert (dropped["line"], dropped["filter"]) == (61, "benchmark_overlap")
    assert "benchmark.jsonl" in dropped["reason"]


def test_a_table_that_is_not_the_contract_s_is_refused(tmp_path: Path, tokenizer: Any) -> None:
    raw = raw_of(tmp_path, records(30))
    table = pl.read_parquet(raw / "rows.parquet")
    write_table(table.rename({"expected_answer": "answer"}), raw / "rows.parquet")
    with pytest.raises(PipelineError, match=r"rows\.parquet is no table of RawRows: column expected_answer is missing"):
        split_of(raw, tokenizer)


def test_nothing_left_says_what_each_filter_dropped(tmp_path: Path, tokenizer: Any) -> None:
    raw = raw_of(tmp_path, rows_with_faults())
    with pytest.raises(PipelineError, match=r"0 rows are left .*missing_answer 1, question_length 64"):
        split_of(raw, tokenizer, recipe_of(filters={"min_question_chars": 5000, "max_question_chars": 9000}), "a")
    with pytest.raises(PipelineError, match=r"0 rows are left .*max_tokens 61"):
        split_of(raw, tokenizer, recipe_of(split={"max_tokens": 1}), "b")


def test_the_chunks_of_a_frame_do_not_reach_its_file(tmp_path: Path) -> None:
    whole = pl.DataFrame({"text": [f"row {i}" for i in range(50_000)]})
    chunked = pl.concat([whole[:333], whole[333:]], rechunk=False)
    assert chunked.n_chunks() == 2
    write_table(whole, tmp_path / "whole.parquet")
    write_table(chunked, tmp_path / "chunked.parquet")
    assert (tmp_path / "whole.parquet").read_bytes() == (tmp_path / "chunked.parquet").read_bytes()


@pytest.mark.skipif(not PUBLISHED_SAMPLE.is_file(), reason="the published sample rows lie outside the repository")
def test_the_published_sample_rows_become_chats(tmp_path: Path, tokenizer: Any) -> None:
    raw = raw_from(tmp_path, Source(kind="file", path=str(PUBLISHED_SAMPLE)))
    split = split_of(raw, tokenizer, parse_recipe({}, where="test"))
    train, held_out = (pl.read_parquet(split / f"{part}.parquet") for part in ("train", "eval"))
    assert (train.height, held_out.height) == (4, 1)
    texts = pl.concat([train, held_out])["completion_text"].to_list()
    assert " \\boxed{\\frac{333}{1997}}\n</s>" in texts


def test_importing_the_room_imports_nothing_heavy() -> None:
    program = (
        "import sys, ernie_pipeline.data.make_split, ernie_pipeline.data.make_raw;"
        "heavy = {'torch', 'transformers', 'datasets', 'huggingface_hub', 'reasoning_gym', 'sympy', 'math_verify'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
