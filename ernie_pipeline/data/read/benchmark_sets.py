"""The benchmark sets that the recipe names: which version of each there is, and their questions.

A set is a file, `path[#column]`, or a data set of the hub, `org/name[/config][@revision][:split][#column]`: for example
`aime.jsonl`, `openai/gsm8k/main`, `HuggingFaceH4/MATH-500`, `HuggingFaceH4/aime_2024:train`. Without them, revision is
`main` and split `test`; the config is the repository's only or default one, and the column the only one that is called
like a question. A set that cannot be resolved or read, or holds no question, is an error: none is ever left out.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from ernie_pipeline.data.read.set_records import FORMATS, Record, file_records, hub_records
from ernie_pipeline.store.hashing.file_hash import sha256_of
from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline.utils.hub import hub_commit

NO_SETS = "none"
REFERENCES = pl.Schema({"set": pl.String, "row": pl.Int64, "question": pl.String})
QUESTION_COLUMNS = ("question", "problem", "prompt", "query", "input", "instruction", "text")
SEPARATOR = ", "

_HUB = re.compile(
    r"(?P<name>[\w.-]+/[\w.-]+)(/(?P<config>[\w.-]+))?(@(?P<revision>[^\s:#]+))?(:(?P<split>[\w.-]+))?(#(?P<column>.+))?"
)


@dataclass(frozen=True)
class BenchmarkSet:
    """One set as the recipe names it; `path` is given for a file, the others for the hub."""

    text: str
    column: str | None = None
    path: Path | None = None
    name: str = ""
    config: str | None = None
    revision: str = "main"
    split: str = "test"

    @property
    def label(self) -> str:
        """What a person calls it; neither a folder nor a revision, for those do not change what it asks."""
        if self.path:
            return self.path.name
        return (
            f"{self.name}{f'/{self.config}' if self.config else ''}{f':{self.split}' if self.split != 'test' else ''}"
        )

    @property
    def identity(self) -> str:
        """What its version stands by in the data version of all sets, in characters that part nothing there."""
        revision = "" if self.path else f"@{self.revision}"
        return re.sub(r"[^\w./@:#-]", "_", f"{self.label}{revision}{f'#{self.column}' if self.column else ''}")


def parse_set(text: str) -> BenchmarkSet:
    """The set that the recipe's `text` names. Raises `PipelineError` when it can be neither a file nor a hub id."""
    path, _, column = text.rpartition("#") if "#" in text else (text, "", "")
    if path.endswith(FORMATS) or path.startswith((".", "/", "~")) or Path(path).is_file():
        return BenchmarkSet(text, column or None, Path(path).expanduser().absolute())
    if not (match := _HUB.fullmatch(text)):
        raise PipelineError(
            f"benchmark set {text!r} is neither a file ({', '.join(FORMATS)}) nor a hub id as "
            '"org/name[/config][@revision][:split][#column]"; correct it in benchmarks.sets'
        )
    return BenchmarkSet(
        text,
        match["column"],
        name=match["name"],
        config=match["config"],
        revision=match["revision"] or "main",
        split=match["split"] or "test",
    )


def resolve_benchmarks(sets: Sequence[str]) -> str:
    """The data version of all sets together: of each, in one order, its name with its content hash or hub commit.

    `NO_SETS` for none. Raises `PipelineError` for a set that is not there, or for which the hub does not answer.
    """
    return SEPARATOR.join(sorted({f"{one.identity}={_version(one)}" for one in map(parse_set, sets)})) or NO_SETS


def load_benchmarks(sets: Sequence[str], version: str) -> pl.DataFrame:
    """`REFERENCES`: every question of the sets at `version`, which `resolve_benchmarks` gave; blank ones are left out.

    `row` is the line of a file of lines, else the row's number, from 1. Raises `PipelineError` when a set cannot be
    read, has no column of questions, holds no question, or is not the one that was resolved.
    """
    versions = version.split(SEPARATOR)
    ordered = sorted({parse_set(text) for text in sets}, key=lambda one: (one.label, one.text))
    return pl.concat([pl.DataFrame(schema=REFERENCES), *(_load(one, versions) for one in ordered)])


def _load(one: BenchmarkSet, versions: list[str]) -> pl.DataFrame:
    if one.path:
        table = _questions(one, file_records(one.path, "benchmark set"))
        if f"{one.identity}={_version(one)}" not in versions:  # asked after it was read
            raise PipelineError(f"benchmark set {one.path} changed while in use; run again")
        return table
    commits = dict(entry.rsplit("=", 1) for entry in versions if "=" in entry)
    if one.identity not in commits:
        raise PipelineError(f"benchmark set {one.text} was not resolved before it was to be read; run again")
    commit = commits[one.identity].removeprefix("commit:")
    cure = 'check the network, and its config and split ("org/name/config:split") in benchmarks.sets'
    return _questions(one, hub_records(one.name, one.config, one.split, commit, f"benchmark set {one.text}", cure))


def _version(one: BenchmarkSet) -> str:
    if one.path:
        return f"sha256:{_file_hash(one.path)}"
    return f"commit:{hub_commit('dataset', one.name, one.revision, 'benchmarks.sets', 'its @revision')}"


def _file_hash(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError as error:
        raise PipelineError(
            f"benchmark set {path} cannot be read ({error.strerror}); correct benchmarks.sets or bring the file there"
        ) from error


def _questions(one: BenchmarkSet, records: Iterable[Record]) -> pl.DataFrame:
    rows: list[tuple[str, int, str]] = []
    for number, record in records:
        column = _column(one, record)
        question = record[column]
        if question is not None and not isinstance(question, str):
            raise PipelineError(
                f"benchmark set {one.text}, row {number}: column {column!r} is no text; name another as "
                f'"{_without_column(one)}#column" in benchmarks.sets'
            )
        if question and question.strip():
            rows.append((one.label, number, question))
    if not rows:
        raise PipelineError(
            f"benchmark set {one.text} holds no question; correct it, or take it out of benchmarks.sets"
        )
    return pl.DataFrame(rows, schema=REFERENCES, orient="row")


def _column(one: BenchmarkSet, record: dict[str, Any]) -> str:
    """The column of questions: the one that the recipe names, else the only one that is called like one."""
    found = [name for name in record if name.lower() in QUESTION_COLUMNS]
    if one.column:
        found = [name for name in record if name == one.column]
    if len(found) == 1:
        return found[0]
    problem = f"has {len(found)} columns that may hold the questions" if found else "has no column of questions"
    raise PipelineError(
        f"benchmark set {one.text} {f'has no column {one.column!r}' if one.column else problem} among "
        f'{", ".join(record) or "none"}; name it as "{_without_column(one)}#column" in benchmarks.sets'
    )


def _without_column(one: BenchmarkSet) -> str:
    return one.text.removesuffix(f"#{one.column}")
