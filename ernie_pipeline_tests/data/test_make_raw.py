"""What the artifact of the raw rows holds: both tables by their contracts, and bytes that depend on the rows alone."""

import gzip
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
import zstandard

from ernie_pipeline.data.make_raw import write_raw
from ernie_pipeline.data.read.source import resolve_source
from ernie_pipeline.data.tables.contracts import BadRows, RawRows, read_checked
from ernie_pipeline.data.tables.parquet import GROUP_ROWS, TableWriter, write_table
from ernie_pipeline.recipe.sections import Source
from ernie_pipeline.utils.errors import PipelineError, is_disk_full
from ernie_pipeline_tests.data.samples import jsonl, record, records, write


def raw(source: Source, out: Path) -> Path:
    out.mkdir()
    write_raw(source, resolve_source(source), out)
    return out


def test_both_tables_keep_to_their_contracts(tmp_path: Path) -> None:
    text = jsonl([*records(3), record(answer=7), [], *records(2)])
    out = raw(write(tmp_path / "a.jsonl", text, max_bad_rows=2), tmp_path / "out")
    assert read_checked(RawRows, out / "rows.parquet")["line"].to_list() == [1, 2, 3, 6, 7]
    assert read_checked(BadRows, out / "bad_rows.parquet").rows() == [
        (4, "expected_answer", "is a number, not a string"),
        (5, "row", "is a list, not an object"),
    ]
    assert sorted(path.relative_to(out).as_posix() for path in out.rglob("*.*")) == [
        "bad_rows.parquet",
        "reports/columns.json",
        "rows.parquet",
    ]


def test_without_broken_rows_their_table_is_there_and_empty(tmp_path: Path) -> None:
    out = raw(write(tmp_path / "a.jsonl", jsonl(records(2))), tmp_path / "out")
    assert read_checked(BadRows, out / "bad_rows.parquet").is_empty()


def test_every_format_gives_the_same_bytes(tmp_path: Path) -> None:
    rows = records(GROUP_ROWS + 1000)
    text = jsonl(rows)
    spaced = text.replace(b'"question": ', b' "question" :  ').replace(b"\n", b"\r\n")
    parquet = tmp_path / "e.parquet"
    pl.DataFrame(rows).write_parquet(parquet, row_group_size=777)
    sources = [
        write(tmp_path / "a.jsonl", text),
        write(tmp_path / "b.jsonl", spaced),
        write(tmp_path / "c.jsonl.gz", gzip.compress(text, 1)),
        write(tmp_path / "d.jsonl.zst", zstandard.compress(text)),
        Source(kind="file", path=str(parquet)),
    ]
    contents = [
        (raw(source, tmp_path / str(number)) / "rows.parquet").read_bytes() for number, source in enumerate(sources)
    ]
    assert [content == contents[0] for content in contents] == [True] * 5
    assert pl.read_parquet(tmp_path / "0" / "rows.parquet")["expected_answer"].to_list() == [
        row["expected_answer"] for row in rows
    ]


def test_on_one_thread_the_bytes_are_the_same(tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", jsonl(records(GROUP_ROWS + 10)))
    here, there = raw(source, tmp_path / "here"), tmp_path / "there"
    there.mkdir()
    code = (
        "import sys, pathlib, pyarrow; pyarrow.set_cpu_count(1);"
        "from ernie_pipeline.data.make_raw import write_raw; from ernie_pipeline.recipe.sections import Source;"
        "write_raw(Source(kind='file', path=sys.argv[1]), sys.argv[2], pathlib.Path(sys.argv[3]))"
    )
    subprocess.run(
        [sys.executable, "-c", code, source.path, resolve_source(source), str(there)],
        env={"POLARS_MAX_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])},
        check=True,
    )
    assert (there / "rows.parquet").read_bytes() == (here / "rows.parquet").read_bytes()


def test_where_a_broken_row_stood_does_not_show_in_the_good_ones(tmp_path: Path) -> None:
    """Chunks end at other rows where some were broken; the row groups do not."""
    rows = jsonl(records(GROUP_ROWS + 5)).splitlines(True)
    blank, broken = [b"\n", *rows], [b"[]\n", *rows]
    first = raw(write(tmp_path / "a.jsonl", b"".join(blank)), tmp_path / "1")
    second = raw(write(tmp_path / "b.jsonl", b"".join(broken), max_bad_rows=1), tmp_path / "2")
    assert (first / "rows.parquet").read_bytes() == (second / "rows.parquet").read_bytes()


SCHEMA = pl.Schema({"n": pl.Int64, "text": pl.String})


def numbers(start: int, end: int) -> pl.DataFrame:
    """Of 400 characters a row, so that a row group has several pages."""
    n = pl.int_range(start, end, eager=True, dtype=pl.Int64)
    return pl.DataFrame({"n": n, "text": n.cast(pl.String).str.zfill(400)}, schema=SCHEMA)


@pytest.mark.parametrize("size", [0, 1, GROUP_ROWS - 1, GROUP_ROWS, GROUP_ROWS + 1, 3 * GROUP_ROWS + 7])
def test_the_bytes_do_not_depend_on_how_the_rows_came(tmp_path: Path, size: int) -> None:
    write_table(numbers(0, size), tmp_path / "whole.parquet")
    with TableWriter(tmp_path / "parts.parquet", SCHEMA) as writer:
        for start in range(0, size, 1237):
            writer.add(numbers(start, min(size, start + 1237)))
            writer.add(numbers(0, 0))
    assert (tmp_path / "parts.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    assert pl.read_parquet(tmp_path / "parts.parquet").equals(numbers(0, size))
    assert pl.read_parquet_schema(tmp_path / "parts.parquet") == SCHEMA


def test_row_groups_are_checked_before_they_are_written(tmp_path: Path) -> None:
    def refuse(table: pl.DataFrame) -> None:
        if table["n"].max() == GROUP_ROWS:
            raise PipelineError("no")

    with pytest.raises(PipelineError, match=r"^no$"), TableWriter(tmp_path / "a.parquet", SCHEMA, refuse) as writer:
        writer.add(numbers(0, GROUP_ROWS + 1))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    place = tmp_path / "small"
    place.mkdir()
    try:
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)], capture_output=True)
    except FileNotFoundError:
        pytest.skip("a full disk needs a small file system, and there is no mount command here")
    if mounted.returncode:
        pytest.skip("a full disk needs a small file system, and none can be mounted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def noise(rows: int) -> pl.DataFrame:
    """1,000 characters a row that hardly compress."""
    text = [f"{(7**1183 * (row + 3) ** 77) % 16**1000:01000x}" for row in range(rows)]
    return pl.DataFrame({"n": range(rows), "text": text}, schema=SCHEMA)


def test_a_disk_that_is_full_at_any_byte_is_told(small_disk: Path) -> None:
    """At each half KB around its end: the footer is written last, when nothing else is left to be told."""
    path, fitted = small_disk / "a.parquet", []
    for rows in [*range(500, 560), 2000]:
        error = _error_of_writing(noise(rows), path)
        assert error is None or is_disk_full(error)
        assert error is not None or pl.read_parquet(path).equals(noise(rows))
        fitted.append(error is None)
        path.unlink()
    assert 5 < sum(fitted) < 55
    assert fitted == sorted(fitted, reverse=True)


def _error_of_writing(table: pl.DataFrame, path: Path) -> OSError | None:
    try:
        write_table(table, path)
    except OSError as error:
        return error
    return None
