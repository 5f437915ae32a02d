"""A recipe as a TOML file."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ernie_pipeline.recipe.sections import Recipe

BARE = re.compile(r"[A-Za-z0-9_-]+")
"""A key that needs no quotes."""


def as_toml(recipe: Recipe) -> str:
    """Every key that it has, in tables; what is None, which TOML has not, is left out."""
    return "\n".join(_tables(recipe.model_dump(mode="json", exclude_none=True), ())).strip() + "\n"


def _tables(values: Mapping[str, Any], place: tuple[str, ...]) -> Iterator[str]:
    plain = {name: value for name, value in values.items() if not isinstance(value, Mapping)}
    if place and (plain or not values):
        yield f"\n[{'.'.join(map(_key, place))}]"
    yield from (f"{_key(name)} = {_value(value)}" for name, value in plain.items())
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _tables(value, (*place, name))


def _key(name: str) -> str:
    return name if BARE.fullmatch(name) else json.dumps(name, ensure_ascii=False)


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(name)} = {_value(each)}" for name, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
