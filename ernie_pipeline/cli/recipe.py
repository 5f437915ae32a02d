"""`recipe show | diff | check`: what a recipe says, how two differ, and whether it can be built. (`recipe init` is in
`init.py`.)"""

from typing import Annotated, Any

import typer

from ernie_pipeline.cli.output import ERROR, FRESH, STALE, AsJson, print_answer
from ernie_pipeline.recipe.as_toml import as_toml
from ernie_pipeline.recipe.load import load_recipe
from ernie_pipeline.recipe.sections import Recipe
from ernie_pipeline.recipe.settings import Settings
from ernie_pipeline.staleness.plan import make_plan
from ernie_pipeline.staleness.reasons import value_words
from ernie_pipeline.staleness.stages import open_chain
from ernie_pipeline.utils.flatten import flatten
from ernie_pipeline.utils.text_table import aligned

Named = Annotated[str | None, typer.Argument(metavar="RECIPE", help="a preset or a TOML file; else the settings'")]


def show(named: Named = None, as_json: AsJson = False) -> int:
    """Every key with its value, those that have their default too."""
    recipe = _loaded(named)
    print_answer(as_json, recipe.model_dump(mode="json"), as_toml(recipe).rstrip())
    return FRESH


def diff(
    before: Annotated[str, typer.Argument(metavar="A", help="a preset or a TOML file")],
    after: Annotated[str | None, typer.Argument(metavar="B", help="the same; else the settings'")] = None,
    as_json: AsJson = False,
) -> int:
    """A line for each key that differs, with its value in either."""
    old, new = (flatten(recipe.model_dump(mode="json")) for recipe in (load_recipe(before), _loaded(after)))
    changed = {
        key: {"before": old.get(key), "after": new.get(key)}
        for key in [*old, *(key for key in new if key not in old)]
        if old.get(key) != new.get(key)
    }
    rows = [("key", before, after or Settings.from_environment().recipe)]
    rows += [(key, _shown(each["before"]), _shown(each["after"])) for key, each in changed.items()]
    print_answer(as_json, changed, aligned(rows) if changed else "They say the same.")
    return STALE if changed else FRESH


def check(named: Named = None, as_json: AsJson = False) -> int:
    """Read the recipe and look at what it is built from: rows, base model, benchmark sets."""
    recipe, settings = _loaded(named), Settings.from_environment()
    if named:
        settings = Settings(**{**vars(settings), "recipe": named})
    chain = open_chain(settings, ask_registry=False)
    versions = {name: chain.version(name) for name in chain.sources}
    refused = make_plan(chain).refused
    values = {"recipe": named or settings.recipe, "sources": versions, "stages": [*chain.stages], "refused": refused}
    width = max(map(len, versions))
    lines = [f"{values['recipe']}: a recipe for {recipe.registry.model_name}, of {recipe.base_model.name}"]
    lines += [f"  {name:<{width}}  {version}" for name, version in versions.items()]
    print_answer(as_json, values, "\n".join([*lines, *([f"error: {refused}"] if refused else [])]))
    return ERROR if refused else FRESH


def _loaded(named: str | None) -> Recipe:
    return load_recipe(named) if named else Settings.from_environment().load_recipe()


def _shown(value: Any) -> str:
    return "not set" if value is None else value_words(value)
