"""The name in the registry, so that a model of other rows never becomes a version of another recipe's by accident."""

import re
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from ernie_pipeline.recipe.sections import Registry
from ernie_pipeline.utils.errors import PipelineError

PRESETS = Path(__file__).parent / "presets"
DEFAULT: str = Registry().model_name
USUAL = ("main", "default")
"""What a data set of the hub calls its only configuration, or its first."""
ENDINGS = re.compile(r"\.[a-z].*$", re.IGNORECASE)


def give_name(table: dict[str, Any], own: Any, where: str) -> None:
    """Set registry.model_name in a recipe's `table` where it follows from the rows. `own`: the file's own [source].

    A recipe without a name gets that of the preset of its rows, else "ernie-math-" and what its source is called.
    Where other rows than its `own` are read, what they are called is put behind a preset's name; a name of one's own
    stays, wherever its rows lie. Raises `PipelineError` for the name of a preset with other rows than that one's. What
    is no table is left to be told by others.
    """
    source, registry = table.get("source", {}), table.get("registry", {})
    if not isinstance(source, dict) or not isinstance(registry, dict):
        return
    name, rows = registry.get("model_name"), rows_of(source)
    if name is not None and not isinstance(name, str):
        return
    presets = {taken: of for taken, of in _preset_names().items() if rows in of}
    if isinstance(own, dict | None) and rows_of(own or {}) != rows:
        if name is None:
            name = next(iter(presets), "")
        elif name in _preset_names():
            name = f"{name}-{called(source)}"
    elif name is None:
        name = next(iter(presets), "")
    elif name in _preset_names() and name not in presets:
        raise PipelineError(
            f'{where}: registry.model_name = "{name}" is that of a preset, whose rows are others, so that this model '
            f'would become a version of that one; give it a name of its own, such as "{DEFAULT}-{called(source)}"'
        )
    table["registry"] = {**registry, "model_name": name or f"{DEFAULT}-{called(source)}"}


def rows_of(source: Mapping[str, Any]) -> tuple[str, str]:
    """Which rows a table [source] names, whatever of them is read at which revision: a file, a data set's
    configuration, the problems of one seed."""
    kind = str(source.get("kind", "demo"))
    if kind == "demo":
        seed = source.get("seed", 0)
        return kind, f"seed {seed}" if seed else ""
    if kind == "hub" and (config := source.get("config")) and config not in USUAL:
        return kind, f"{source.get('dataset', '')}/{config}"
    return kind, str(source.get({"file": "path", "hub": "dataset"}.get(kind, ""), ""))


def called(source: Mapping[str, Any]) -> str:
    """What the rows are called in a name: "grade-3" of "data/Grade 3.csv", "gsm8k" of "openai/gsm8k",
    "gsm8k-socratic" of its configuration, "demo-seed-7"."""
    kind, place = rows_of(source)
    names = {"file": ENDINGS.sub("", Path(place).name), "hub": place.partition("/")[2] or place}
    name = names.get(kind) or f"{kind} {place}"
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "rows"


@cache
def _preset_names() -> dict[str, set[tuple[str, str]]]:
    """The presets' names, each with the rows of the presets that have it."""
    names: dict[str, set[tuple[str, str]]] = {}
    for path in sorted(PRESETS.glob("*.toml")):
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        names.setdefault(table.get("registry", {}).get("model_name", DEFAULT), set()).add(rows_of(table["source"]))
    return names
