"""`init`: a commented recipe for one's own rows, whose columns, lengths and filters are told from the rows."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer

from ernie_pipeline.cli.output import FRESH
from ernie_pipeline.cli.settings_options import with_options
from ernie_pipeline.data.chat.template import chat_rows
from ernie_pipeline.data.chat.tokens import TEXT, with_tokens
from ernie_pipeline.data.normalize.answers import with_answer
from ernie_pipeline.data.normalize.row_id import with_row_id
from ernie_pipeline.data.read.other_schema import LOOKED_AT, shown_column
from ernie_pipeline.data.read.propose import Proposal, propose, toml_text
from ernie_pipeline.data.read.reading import NoRows
from ernie_pipeline.data.read.records import first_records
from ernie_pipeline.data.read.row_schema import COLUMNS
from ernie_pipeline.data.read.source import describe_source, resolve_source
from ernie_pipeline.data.survey import Survey, round_up, survey
from ernie_pipeline.demo import BASE
from ernie_pipeline.launch.torchrun import gpus_here
from ernie_pipeline.models.checkpoint.tokenizer import load_tokenizer
from ernie_pipeline.recipe.load import load_recipe, parse_recipe, source_table
from ernie_pipeline.recipe.registered_name import DEFAULT, called
from ernie_pipeline.recipe.sections import Source
from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline.utils.near import did_you_mean

REAL, DEMO = "unsloth/ERNIE-4.5-21B-A3B-PT", "demo"
ROWS = (
    'rows are lines such as {"question": "1 + 1?", "answer": "2"}, a JSON array of such objects, or a table with such '
    "columns (CSV, TSV, Parquet, Arrow)"
)
MEASURED = 400
"""Rows whose tokens are counted."""
MOST_CHARS = 16
"""Of a token: what has more than so many times the tokens that a row may have is too long, and is not tokenized."""
ROOM = 1.25
"""Times the longest row measured, that split.max_tokens leaves."""
LONGEST = {DEMO: 1536, REAL: 8192}
"""Tokens that a row may have at most: what the model reads, or what a GPU's memory trains."""
EVALUATED, MOST_EVALUATED = 200, 0.2
"""Rows to measure on, and their share at most."""

DEMO_TRAINING = """[quantization]
compute_dtype = "float32"     # on a CPU
double = false

[training]
samples_per_step = 8
max_steps = 30
learning_rate = 1e-3
optimizer = "adamw_torch"
eval_every = 15

[evaluation]
rows = 50
max_new_tokens = 112"""
REAL_TRAINING = """[training]
samples_per_step = 16
epochs = 1.0
learning_rate = 2e-4
# on = "solutions"           the model's own worked solutions that were right, instead of bare answers: docs/learning.md

[evaluation]
max_new_tokens = 2048"""


@dataclass(frozen=True)
class Lengths:
    """Of prompt and completion in tokens of the base model: the median, and a bound; None where not measured.

    `longer`: of the `measured` rows, those that the bound drops.
    """

    median: int | None
    bound: int
    measured: int = 0
    longer: int = 0


def _column(what: str) -> Any:
    return typer.Option(metavar="COLUMN", help=f"the column of the {what}, where its name tells not")


def init(
    source: Annotated[
        str, typer.Argument(metavar="ROWS", help="a file (JSONL, JSON, CSV, TSV, Parquet, Arrow), or a hub id")
    ],
    out: Annotated[Path | None, typer.Option(metavar="FILE.toml", help="the recipe (called as the rows, here)")] = None,
    base: Annotated[
        str | None, typer.Option(metavar="MODEL", help="demo, a hub id or a folder (by whether there is a GPU)")
    ] = None,
    question: Annotated[str | None, _column("question")] = None,
    answer: Annotated[str | None, _column("reference answer")] = None,
    messages: Annotated[str | None, _column("chat")] = None,
    extract: Annotated[
        str | None, typer.Option(metavar="HOW", help='"boxed", "after ####" or a regular expression')
    ] = None,
) -> int:
    """Write a recipe for the rows that are named, and say how to run it.

    Raises `PipelineError` where the file stands already, the columns do not tell what they hold, or no row is read.
    """
    table = source_table(source)
    out = out or Path(f"{called(table)}.toml")
    rows = Source(**table)
    version = _version(rows, source)
    named = {"question": question, "answer": answer, "messages": messages, "extract": extract}
    proposal = _named(named, rows, version) or _proposal(rows, version)
    keys = proposal.keys if proposal else {}
    table |= keys
    if table["kind"] == "file":
        table["path"] = str(Path(table["path"]).expanduser().absolute())
    found = _survey(_source_of(table), version)
    if out.exists():
        raise PipelineError(f"{out} is there already; move it away, or name another file with --out")
    base = base or (REAL if gpus_here() else DEMO)
    lengths = _lengths(found, base)
    text = recipe_text(table, proposal, found, base, lengths)
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise PipelineError(f"{out} cannot be written ({error.strerror}); name another file with --out") from error
    load_recipe(str(out))  # which says what is wrong with it
    print(_summary(out, describe_source(rows), proposal, found, base, lengths))
    return FRESH


def _version(rows: Source, named: str) -> str:
    """Of the rows that are `named`. Raises `PipelineError` where there are none, which no setting mends."""
    path = Path(rows.path).expanduser()
    if rows.kind == "file" and path.is_dir():
        raise PipelineError(f"{named} is a folder; name a file of rows in it")
    if rows.kind == "file" and not path.exists():
        beside = [each.name for each in path.parent.glob("*")]
        near = did_you_mean(path.name, beside) or "name a file of rows, or a data set of the hub (openai/gsm8k/main)"
        raise PipelineError(f"there is no file {named}; {near}")
    try:
        return resolve_source(rows)
    except PipelineError as error:
        if rows.kind == "hub":
            raise PipelineError(f"there is no file {named}, and as a data set of the hub: {error}") from None
        raise


def _survey(source: Source, version: str) -> Survey:
    """A look at the rows. Raises `PipelineError` where none can be read, and what rows are where there are no such."""
    try:
        return survey(source, version)
    except NoRows as error:
        raise PipelineError(f"{error.told}; write rows into it, or name another") from None
    except PipelineError as error:
        if source.kind == "file" and not first_records(source, version, LOOKED_AT):
            raise PipelineError(f"{error}: {ROWS}") from None
        raise


def _named(given: dict[str, str | None], source: Source, version: str) -> Proposal | None:
    """The columns that the command line names, if it does; how to extract alone is of the columns that are told."""
    keys = {key: value for key, value in given.items() if value}
    if [*keys] == ["extract"] and (found := propose(first_records(source, version, LOOKED_AT))):
        return found._replace(keys=found.keys | keys)
    return Proposal("rows whose columns you named", keys) if keys else None


def _source_of(table: dict[str, Any]) -> Source:
    """[source] as a recipe has it. Raises `PipelineError` in words of the command line, whose options are its keys."""
    try:
        return parse_recipe({"source": table}, where="the rows").source
    except PipelineError as error:
        told = re.sub(r"\bsource\.(question|answer|messages|extract)\b", r"--\1", str(error))
        raise PipelineError(told.removeprefix("the rows: ")) from error


def _proposal(source: Source, version: str) -> Proposal | None:
    """How the rows are read; None where they have the schema."""
    records = first_records(source, version, LOOKED_AT)
    found = propose(records)
    if records and set(COLUMNS) <= set(records[0]) and not isinstance(records[0]["expected_answer"], int | float):
        return None
    if records and not found:
        inside = [shown_column(key) for key, value in records[0].items() if isinstance(value, list) and value]
        if len(records) == 1 and len(inside) == 1:
            raise PipelineError(
                f"{describe_source(source)} is one object, not rows; write the members of its {inside[0]!r} one a "
                "line, or as one array"
            )
        if len(records) == 1 and len(inside) == len(records[0]):
            raise PipelineError(f"{describe_source(source)} is one object of columns, not rows; write one object a row")
        names = ", ".join(map(repr, records[0]))
        of_first_line = " (its first line, so it has to have a header)" if _is_table(source) else ""
        raise PipelineError(
            f"{describe_source(source)} has the columns {names}{of_first_line}, which do not tell what they hold: name "
            "them with --question COLUMN --answer COLUMN, or --messages COLUMN, and --extract where more than the "
            "answer is there"
        )
    return found


def _is_table(source: Source) -> bool:
    return source.kind == "file" and {".csv", ".tsv"} & set(Path(source.path).suffixes) != set()


def _lengths(found: Survey, base: str) -> Lengths:
    """Measured with the base model's tokenizer, where it can be had."""
    longest = LONGEST.get(base, 2048)
    try:
        tokenizer: Any = load_tokenizer(str(BASE) if base == DEMO else base)
    except PipelineError:
        return Lengths(None, 2048)
    rows = with_answer(with_row_id(found.rows)).drop_nulls(["answer", "question"])
    chats = chat_rows(rows.gather_every(max(1, rows.height // MEASURED)).head(MEASURED), tokenizer)
    of_use = chats.filter(TEXT.str.len_chars() <= MOST_CHARS * longest)
    tokens = with_tokens(of_use, tokenizer)["tokens"].to_list() + [longest + 1] * (chats.height - of_use.height)
    if not tokens:
        return Lengths(None, 2048)
    bound = min(longest, max(64, round_up(int(ROOM * max(tokens)))))
    return Lengths(int(median(tokens)), bound, len(tokens), sum(count > bound for count in tokens))


def recipe_text(table: dict[str, Any], proposal: Proposal | None, found: Survey, base: str, lengths: Lengths) -> str:
    """The recipe as TOML, each choice with its reason."""
    name = f"{DEFAULT}-{called(table)}"
    parts = [
        _head(found, base),
        _source(table, proposal, found),
        f"[base_model]\nname = {toml_text(base)}",
        _filters(found),
        _split(found, lengths),
        DEMO_TRAINING if base == DEMO else REAL_TRAINING,
        f"[registry]\nmodel_name = {toml_text(name)}     # no other recipe's versions stand under it",
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def _head(found: Survey, base: str) -> str:
    rows = f"{found.rows.height:,} rows" if found.whole else f"the first {found.rows.height:,} rows"
    lines = [
        f'# Written by "ernie recipe init" from a look at {rows}: {found.kept:,} of them pass the filters.',
        "# What is not here has the default that docs/reference.md tells.",
    ]
    if base == DEMO:
        lines += [
            "#",
            "# The base model is the small one of this package, which runs everywhere and knows little: a first try",
            f"# of the whole chain. For a GPU, write this file anew with --base {REAL}",
        ]
    return "\n".join(lines)


def _source(table: dict[str, Any], proposal: Proposal | None, found: Survey) -> str:
    lines = ["[source]", *(f"{key} = {toml_text(value)}" for key, value in table.items())]
    if proposal:
        place = len(lines) - len(proposal.keys)
        lines.insert(place, f"# it looks like {proposal.looks_like}:")
    if proposal and "instruction" not in table:
        lines.append("# instruction = ...        what stands before each question; the default asks for \\boxed{}")
    if found.bad:
        share = f"{found.bad:,} of {found.bad + found.rows.height:,} rows cannot be read so, the first in line"
        lines += [f"# {share} {found.first_bad}", f"max_bad_rows = {found.bad if found.whole else 2 * found.bad}"]
    return "\n".join(lines)


def _filters(found: Survey) -> str:
    lines = [f"{name} = {bound}" for name, bound in found.bounds.items()]
    share = found.rows.height / 100
    lines += [
        f"{name} = false     # it would take {count / share:.0f} % of these rows" for name, count in found.off.items()
    ]
    parts = ["\n".join(["[filters]", *lines])] if lines else []
    if found.alike:
        told = f"{found.alike / share:.0f} % of these rows are nearly another one: kept, with their like in one part"
        parts.append(f'[near_duplicates]\nkeep = "all"     # {told}')
    return "\n\n".join(parts)


def _split(found: Survey, lengths: Lengths) -> str:
    share = min(MOST_EVALUATED, max(0.01, round(EVALUATED / max(1, found.kept), 2)))
    measured = "not measured" if lengths.median is None else f"half of the rows have at most {lengths.median}"
    return (
        f"[split]\neval_fraction = {share:g}     # about {round(share * found.kept):,} rows to measure on\n"
        f"max_tokens = {lengths.bound}     # {measured}; those with more than {lengths.bound} are dropped"
    )


def _summary(out: Path, rows: str, proposal: Proposal | None, found: Survey, base: str, lengths: Lengths) -> str:
    """What was written, and how to go on."""
    read = f"as {proposal.looks_like} ({', '.join(proposal.lines)})" if proposal else "by the schema that they have"
    more = "" if found.whole else " of the first"
    bad = f"; {found.bad:,} cannot be read, the first in line {found.first_bad}" if found.bad else ""
    long = (
        f"{lengths.longer:,} of {lengths.measured:,} measured have more tokens than split.max_tokens = {lengths.bound} "
        "and will be dropped.\n"
    )
    run = with_options(f"ernie run --recipe {shlex.quote(str(out))}", "recipe", "source")
    return (
        f"{out}: {rows}, read {read}; base model {base}.\n"
        f"{found.kept:,}{more} of {found.rows.height:,} rows pass the filters{bad}.\n"
        f"{long if lengths.longer else ''}\n"
        f"The rows alone, and then all of it:\n\n    {run} --only raw_nemotron,math_split\n"
        f"    {run}"
    )
