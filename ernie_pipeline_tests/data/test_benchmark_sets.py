import gzip
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import polars as pl
import pytest
import zstandard
from huggingface_hub import HfApi

from ernie_pipeline.data.read import benchmark_sets
from ernie_pipeline.data.read.benchmark_sets import NO_SETS, REFERENCES, load_benchmarks, parse_set, resolve_benchmarks
from ernie_pipeline.utils.errors import PipelineError

COMMIT = "0123456789abcdef0123456789abcdef01234567"
QUESTIONS = ["What is 1 + 1?", "Who is é?"]


def lines(column: str = "problem") -> bytes:
    return b"".join(json.dumps({"id": 7, column: question}).encode() + b"\n" for question in QUESTIONS)


def load(*sets: str | Path) -> pl.DataFrame:
    names = [str(one) for one in sets]
    return load_benchmarks(names, resolve_benchmarks(names))


def csv(path: Path) -> None:
    pl.DataFrame({"id": [1, 2], "Question": QUESTIONS}).write_csv(path)


WRITERS: dict[str, Callable[[Path], Any]] = {
    "a.jsonl": lambda path: path.write_bytes(lines()),
    "a.jsonl.gz": lambda path: path.write_bytes(gzip.compress(lines())),
    "a.jsonl.zst": lambda path: path.write_bytes(zstandard.compress(lines())),
    "a.json": lambda path: path.write_text(json.dumps([{"prompt": question} for question in QUESTIONS])),
    "lines.json": lambda path: path.write_bytes(lines("query")),
    "a.json.gz": lambda path: path.write_bytes(gzip.compress(lines("input"))),
    "a.csv": csv,
    "a.parquet": lambda path: pl.DataFrame({"answer": [2, 3], "question": QUESTIONS}).write_parquet(path),
    "a.txt": lambda path: path.write_text("\ufeff" + "\r\n".join(QUESTIONS), encoding="utf-8"),
    "a.txt.gz": lambda path: path.write_bytes(gzip.compress("\n".join(QUESTIONS).encode())),
}


@pytest.mark.parametrize("name", WRITERS)
def test_each_format_gives_the_same_questions(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / name)
    table = load(tmp_path / name)
    assert table.schema == REFERENCES
    assert table.rows() == [(name, row, question) for row, question in enumerate(QUESTIONS, start=1)]


def test_no_set_has_a_version_and_no_questions() -> None:
    assert resolve_benchmarks([]) == NO_SETS
    assert load_benchmarks([], NO_SETS).is_empty()


def test_the_version_is_that_of_the_contents_wherever_they_lie(tmp_path: Path) -> None:
    versions = []
    for folder, content in (("a", lines()), ("b", lines()), ("c", lines("question"))):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "set.jsonl").write_bytes(content)
        versions.append(resolve_benchmarks([str(tmp_path / folder / "set.jsonl")]))
    assert versions[0] == versions[1] != versions[2]
    assert versions[0].startswith("set.jsonl=sha256:")


def test_the_order_of_the_sets_does_not_matter(tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).write_bytes(lines())
    sets = [str(tmp_path / name) for name in ("a.jsonl", "b.jsonl")]
    assert resolve_benchmarks(sets) == resolve_benchmarks([*reversed(sets), sets[0]])
    assert load(*sets).equals(load(*reversed(sets), sets[0]))
    assert load(*sets)["set"].unique().sort().to_list() == ["a.jsonl", "b.jsonl"]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("openai/gsm8k/main", ("openai/gsm8k", "main", "main", "test", None)),
        ("HuggingFaceH4/MATH-500", ("HuggingFaceH4/MATH-500", None, "main", "test", None)),
        ("HuggingFaceH4/aime_2024:train", ("HuggingFaceH4/aime_2024", None, "main", "train", None)),
        (f"a/b/c_1@{COMMIT}:dev#A column", ("a/b", "c_1", COMMIT, "dev", "A column")),
        ("a/b@refs/convert/parquet#q", ("a/b", None, "refs/convert/parquet", "test", "q")),
    ],
)
def test_a_hub_set_is_named_in_parts(text: str, parts: tuple[str | None, ...]) -> None:
    one = parse_set(text)
    assert (one.name, one.config, one.revision, one.split, one.column) == parts
    assert one.path is None


def test_another_column_is_named_behind_the_file(tmp_path: Path) -> None:
    record = {"question": "one?", "problem": "two?"}
    (tmp_path / "a.jsonl").write_text(json.dumps(record) + "\n")
    with pytest.raises(PipelineError, match=r"2 columns that may hold .* question, problem; name it as .*a\.jsonl#col"):
        load(tmp_path / "a.jsonl")
    assert load(f"{tmp_path / 'a.jsonl'}#problem")["question"].to_list() == ["two?"]
    assert resolve_benchmarks([f"{tmp_path / 'a.jsonl'}#problem"]).startswith("a.jsonl#problem=")
    with pytest.raises(PipelineError, match=r"has no column 'task' among question, problem; .*a\.jsonl#column"):
        load(f"{tmp_path / 'a.jsonl'}#task")


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.jsonl", b"", "holds no question"),
        ("a.txt", b" \n\n", "holds no question"),
        ("a.jsonl", b'{"question": null}\n{"question": " "}\n', "holds no question"),
        ("a.jsonl", b'{"id": 1}\n', "has no column of questions among id; name it"),
        ("a.jsonl", b'{"question": "x"}\n[1]\n', "row 2: it is no object"),
        ("a.jsonl", b'{"question": ["x"]}\n', "row 1: column 'question' is no text"),
        ("a.jsonl", b'{"question": "x"}\n{"quest', "line 2: it was cut off"),
        ("a.jsonl", b'{"question": "x"\n{}\n', "cannot be read"),
        ("a.json", b'[{"question": "x"}', "ends inside its array of rows: it was cut off"),
        ("a.json", b"[" * 100_000, "ends inside line 1: it was cut off"),
        ("a.json.gz", gzip.compress(b'[{"question": "x"}]', mtime=0)[:-9], "ends inside its compressed data"),
        ("a.parquet", b"PAR1 not", "is not a readable Parquet file"),
        ("a.csv", b"", "holds no question"),
        ("a.txt", b"\xff\xfe\xfa", "cannot be read"),
        ("a.unknown", b"x\n", "cannot be read .* one of"),
    ],
)
def test_what_cannot_be_read_stops_the_run(tmp_path: Path, name: str, content: bytes, sentence: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(PipelineError, match=sentence) as caught:
        load(tmp_path / name)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{tmp}/none.jsonl", r"benchmark set {tmp}/none\.jsonl cannot be read \(No such file"),
        ("{tmp}", r"cannot be read \(Is a directory"),
        ("gsm8k", "'gsm8k' is neither a file .* nor a hub id"),
        ("a/b/c/d", "'a/b/c/d' is neither"),
        ("", "'' is neither"),
    ],
)
def test_what_is_not_there_stops_the_run(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(PipelineError, match=sentence.replace("{tmp}", str(tmp_path))):
        resolve_benchmarks([text.replace("{tmp}", str(tmp_path))])


def test_a_file_that_changes_while_it_is_read_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines())
    version = resolve_benchmarks([str(path)])
    read = benchmark_sets.file_records

    def read_and_change(file: Path, called: str) -> Any:
        yield from read(file, called)
        file.write_bytes(lines() + lines())

    monkeypatch.setattr(benchmark_sets, "file_records", read_and_change)
    with pytest.raises(PipelineError, match="changed while in use; run again"):
        load_benchmarks([str(path)], version)


def test_a_file_that_changed_before_it_is_read_stops_the_run(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines())
    version = resolve_benchmarks([str(path)])
    path.write_bytes(lines() + lines())
    with pytest.raises(PipelineError, match="changed while in use; run again"):
        load_benchmarks([str(path)], version)


def hub_holds(monkeypatch: pytest.MonkeyPatch, rows: list[dict[str, Any]] | Exception) -> list[tuple[Any, ...]]:
    """Imitates the hub's two outermost calls; gives the list of what was loaded.

    `HfApi.dataset_info` gives an object with `sha`. `datasets.load_dataset(path, name, *, split, revision)` gives
    rows as dictionaries, or raises `ValueError` for a split or config that the set does not have, and kinds of
    `OSError` without a network.
    """
    loaded = []

    def dataset_info(self: HfApi, repo_id: str, *, revision: str, timeout: float) -> Any:
        return SimpleNamespace(sha=COMMIT)

    def load_dataset(path: str, name: str | None, *, split: str, revision: str) -> list[dict[str, Any]]:
        loaded.append((path, name, split, revision))
        if isinstance(rows, Exception):
            raise rows
        return rows

    monkeypatch.setattr(HfApi, "dataset_info", dataset_info)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return loaded


def test_a_hub_set_is_read_at_the_commit_that_was_resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = hub_holds(monkeypatch, [{"question": question, "answer": "#### 2"} for question in QUESTIONS])
    sets = ["openai/gsm8k/main", "HuggingFaceH4/aime_2024@v1:train"]
    version = resolve_benchmarks(sets)
    assert version == (f"HuggingFaceH4/aime_2024:train@v1=commit:{COMMIT}, openai/gsm8k/main@main=commit:{COMMIT}")
    later = "f" * 40  # the branch has moved on since
    monkeypatch.setattr(HfApi, "dataset_info", lambda *args, **kwargs: SimpleNamespace(sha=later))
    table = load_benchmarks(sets, version)
    assert loaded == [
        ("HuggingFaceH4/aime_2024", None, "train", COMMIT),
        ("openai/gsm8k", "main", "test", COMMIT),
    ]
    assert table["set"].unique(maintain_order=True).to_list() == ["HuggingFaceH4/aime_2024:train", "openai/gsm8k/main"]
    assert table["row"].to_list() == [1, 2, 1, 2]


@pytest.mark.parametrize(
    ("held", "sentence"),
    [
        ([], "set a/b holds no question"),
        (
            ValueError("Unknown split \"test\".\nShould be one of ['train']."),
            r"Unknown split .* one of \['train'\].*check",
        ),
        (ConnectionError("no route"), "no route.*; check the network"),
        (datasets.exceptions.DatasetNotFoundError("gone"), "gone"),
        ([{"question": 7}], "is no text"),
    ],
)
def test_a_hub_set_that_cannot_be_read_stops_the_run(monkeypatch: pytest.MonkeyPatch, held: Any, sentence: str) -> None:
    hub_holds(monkeypatch, held)
    with pytest.raises(PipelineError, match=sentence) as caught:
        load("a/b")
    assert "\n" not in str(caught.value)


def test_a_set_that_was_not_resolved_is_never_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    loaded = hub_holds(monkeypatch, [{"question": "x?"}])
    (tmp_path / "a.jsonl").write_bytes(lines())
    for one in ("a/b", str(tmp_path / "a.jsonl")):
        with pytest.raises(PipelineError, match="run again"):
            load_benchmarks([one], NO_SETS)
    with pytest.raises(PipelineError, match="run again"):
        load_benchmarks(["a/b:train"], resolve_benchmarks(["a/b"]))
    assert loaded == []
