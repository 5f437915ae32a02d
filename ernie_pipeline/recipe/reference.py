"""docs/reference.md: every table and key of a recipe with type, default and bounds, as the types say it.

Write it anew after a change of `sections.py` or `execution.py`:

    python -m ernie_pipeline.recipe.reference > docs/reference.md
"""

from collections.abc import Iterator
from types import UnionType
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from ernie_pipeline.recipe.execution import Execution, ExecutionOverrides
from ernie_pipeline.recipe.sections import Recipe

HEAD = """# Reference: the keys of a recipe

A recipe is a TOML file. What it leaves out has the default that stands here; an unknown key, or a value of another
type, is an error that names it. Made from the types by `python -m ernie_pipeline.recipe.reference`.
"""
BOUNDS = {"gt": "above {}", "ge": "at least {}", "lt": "below {}", "le": "at most {}"}


def recipe_reference() -> str:
    """The page, in Markdown."""
    lines = [HEAD]
    for name, section in _sections("", Recipe):
        lines += [f"## [{name}]", "", *_about(section), "", *_table(section), ""]
    return "\n".join(lines)


def _sections(place: str, of: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel]]]:
    """Every table below `of`, by its name in TOML; NAME stands for that of one of which there may be any number."""
    for name, field in of.model_fields.items():
        section = _section(field)
        if section is not None:
            own = f"{place}{name}.NAME" if get_origin(field.annotation) is dict else f"{place}{name}"
            yield own, section
            yield from _sections(f"{own}.", section)


def _section(field: FieldInfo) -> type[BaseModel] | None:
    """The class of a table, also where the recipe may do without it."""
    kinds = [field.annotation, *get_args(field.annotation)]
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


def _about(section: type[BaseModel]) -> list[str]:
    return [line.strip() for line in (section.__doc__ or "").strip().splitlines()]


def _table(section: type[BaseModel]) -> Iterator[str]:
    yield "| key | type | default | |"
    yield "|---|---|---|---|"
    for name, field in section.model_fields.items():
        if _section(field) is not None:
            continue
        typed = _of_execution(section, name, field)
        about = field.description or typed.description
        text = "; ".join(filter(None, [", ".join(_bounds(typed)), about])).replace("|", "\\|")
        yield f"| `{name}` | {_type(typed.annotation)} | {_default(field)} | {text} |"


def _of_execution(section: type[BaseModel], name: str, field: FieldInfo) -> FieldInfo:
    """[execution] is said beforehand, with None for what is not: what a key is, its own class says."""
    return Execution.model_fields.get(name, field) if section is ExecutionOverrides else field


def _bounds(field: FieldInfo) -> Iterator[str]:
    for bound in field.metadata:
        for attribute, words in BOUNDS.items():
            if (value := getattr(bound, attribute, None)) is not None:
                yield words.format(value)


def _type(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " or ".join(f'`"{value}"`' if isinstance(value, str) else f"`{value}`" for value in arguments)
    if origin is UnionType or str(origin) == "typing.Union":
        return ", or ".join(_type(each) for each in arguments if each is not type(None))
    if origin is tuple or origin is list:
        return f"list of {_type(arguments[0])}"
    if str(origin) == "typing.Annotated" or hasattr(annotation, "__metadata__"):
        return _type(arguments[0])
    names = {"str": "text", "int": "whole number", "float": "number", "bool": "true or false"}
    return names.get(getattr(annotation, "__name__", ""), getattr(annotation, "__name__", str(annotation)))


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "must be given"
    if value is None or value == "":
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, list | tuple):
        return "`" + ("[" + ", ".join(f'"{each}"' for each in value) + "]") + "`"
    if isinstance(value, str):
        return '`"' + value.replace("\n", "\\n") + '"`'
    return f"`{value}`"


if __name__ == "__main__":
    print(recipe_reference(), end="")
