"""A recipe from TOML: a preset by its name or a file by its path, with every mistake told in one sentence."""

import json
import tomllib
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from ernie_pipeline.recipe.execution import ExecutionOverrides
from ernie_pipeline.recipe.registered_name import PRESETS, give_name
from ernie_pipeline.recipe.sections import Recipe
from ernie_pipeline.recipe.suites import former_key
from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline.utils.near import did_you_mean

ENDINGS = (".jsonl", ".json", ".csv", ".tsv", ".gz", ".zst", ".parquet", ".arrow", ".feather")
"""A source whose name ends so is a file, whether it is there or not."""
KEPT_KEYS = ("max_bad_rows", "question", "answer", "messages", "extract", "instruction")
"""What the recipe says of its source that holds for another one too: how rows are read."""


def load_recipe(name_or_path: str = "demo", source: str | None = None, execution: str | None = None) -> Recipe:
    """Read a preset by its name, or a TOML file by its path.

    `source` replaces the recipe's source, see `source_table`. A name for the registry follows from the rows where the
    recipe has none, or other rows take the place of its own: see `give_name`.
    `execution`: the name of a profile, or keys of the table `[execution]` as in TOML ('micro_batch = 4, packing =
    true'), which go before the file's own.
    Raises `PipelineError` in one sentence for a missing file, broken TOML, an unknown key or a wrong value.
    """
    try:
        path = _recipe_path(name_or_path)
        table = tomllib.loads(path.read_text(encoding="utf-8-sig"))  # editors of Windows mark the file's begin
    except OSError as error:  # of looking for it too, in a folder that may not be searched
        cure = "mend that, or name another with --recipe or ERNIE_PIPELINE_RECIPE"
        raise PipelineError(f"recipe {name_or_path!r} cannot be read ({error.strerror}); {cure}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PipelineError(f"recipe {path}: not valid TOML ({error}); correct it and run again") from error
    own = table.get("source")
    if source:
        table["source"] = {**source_table(source), **_kept_source_keys(own)}
    give_name(table, own if source else table.get("source"), where=f"recipe {path}")
    recipe = parse_recipe(table, where=f"recipe {path}")
    if not execution:
        return recipe
    own = parse_execution(_execution_table(execution), where=f"ERNIE_PIPELINE_EXECUTION = {execution!r}")
    return recipe.model_copy(update={"execution": own.over(recipe.execution)})


def parse_recipe(table: dict[str, Any], where: str) -> Recipe:
    """A recipe from nested tables; `where` names their origin in errors.

    Strict: "4" and true are no numbers, and 1 is no truth value.
    """
    try:  # as JSON, in which a list may stand for a tuple; a date, which JSON has not, is no value of a recipe's
        return Recipe.model_validate_json(json.dumps(table, default=str), strict=True)
    except ValidationError as error:
        raise PipelineError(f"{where}: {'; '.join(_explain(e) for e in error.errors())}") from error


def parse_execution(values: dict[str, Any], where: str) -> ExecutionOverrides:
    """What a table `[execution]` says, wherever it stands. Raises `PipelineError` like `parse_recipe`."""
    return parse_recipe({"execution": values}, where).execution


def _recipe_path(name_or_path: str) -> Path:
    preset = PRESETS / f"{name_or_path}.toml"
    path = preset if preset.is_file() else Path(name_or_path).expanduser()
    if path.is_dir():
        raise PipelineError(f"recipe {name_or_path!r} is a folder; name a TOML file in it")
    if not path.is_file():
        presets, here = sorted(p.stem for p in PRESETS.glob("*.toml")), (p.name for p in Path().glob("*.toml"))
        cure = did_you_mean(name_or_path, [*presets, *here]) or "name one with --recipe or ERNIE_PIPELINE_RECIPE"
        of = ", ".join(presets)
        raise PipelineError(f"recipe {name_or_path!r} is neither a preset ({of}) nor a TOML file; {cure}")
    return path


def source_table(source: str) -> dict[str, Any]:
    """[source] of a path when such a file exists or the name looks like one, else of a hub id, "org/name[/config]"."""
    if source.startswith((".", "/", "~")) or source.endswith(ENDINGS) or Path(source).exists():
        return {"kind": "file", "path": source}
    owner, slash, rest = source.partition("/")
    name, _, config = rest.partition("/")
    return {"kind": "hub", "dataset": f"{owner}{slash}{name}", **({"config": config} if config else {})}


def _execution_table(text: str) -> dict[str, Any]:
    if "=" not in text:
        return {"profile": text}
    try:
        return dict(tomllib.loads(f"execution = {{{text}}}")["execution"])
    except tomllib.TOMLDecodeError as error:
        raise PipelineError(
            f"ERNIE_PIPELINE_EXECUTION = {text!r} is neither the name of a profile nor keys of the table [execution] "
            f"({error}); set it to one, such as 24gb or 'micro_batch = 4, packing = true'"
        ) from error


def _kept_source_keys(section: Any) -> dict[str, Any]:
    """What of the recipe's own source section still holds when another source takes its place."""
    return {key: section[key] for key in KEPT_KEYS if key in section} if isinstance(section, dict) else {}


def _explain(error: Any) -> str:
    place = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden" and error["loc"][::2] == ("suites", "reference"):
        return f"{place} {former_key(error['input'])}"
    if error["type"] == "extra_forbidden":
        known = _keys_at(error["loc"][:-1])
        near = did_you_mean(str(error["loc"][-1]), known)
        elsewhere = [name for name in Recipe.model_fields if error["loc"][-1] in _keys_at((name,))]
        hint = near or f"the keys there are {', '.join(known)}"
        return f"unknown key {place}; " + (f"it belongs to [{elsewhere[0]}]" if elsewhere and not near else hint)
    if error["type"] in ("model_type", "dict_type"):
        return f"{place} = {error['input']!r} is no table; write [{place}] and its keys below it"
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "value_error":
        return f"{place} {message}" if error["loc"][:1] == ("suites",) else message
    return f"{place} = {error['input']!r}: {message[0].lower()}{message[1:]}"


def _keys_at(loc: tuple[Any, ...]) -> list[str]:
    """The keys of a table; of one that holds tables by name, those that each of them has."""
    model: Any = Recipe
    for part in loc:
        fields = getattr(model, "model_fields", None)
        model = fields[part].annotation if fields else get_args(model)[1]
    return list(getattr(model, "model_fields", []))
