"""Several recipes in one code location of Dagster's, ERNIE_PIPELINE_RECIPES: what each is called there."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from ernie_pipeline.utils.errors import PipelineError

VARIABLE = "ERNIE_PIPELINE_RECIPES"


def called(recipe: str) -> str:
    """ "grade_3" of "data/grade-3.toml": letters, digits and _, as Dagster has names."""
    name = re.sub(r"\W", "_", Path(recipe).name.removesuffix(".toml"), flags=re.ASCII)
    if not name:
        raise PipelineError(f"{VARIABLE} names a recipe without a name, {recipe!r}; separate recipes by one comma")
    return name


def named(value: str) -> tuple[str, ...]:
    """The recipes in the variable's value."""
    return tuple(part.strip() for part in value.split(",")) if value.strip() else ()


def as_selected(assets: Iterable[str], environment: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """The assets of the environment's ERNIE_PIPELINE_RECIPE as `dagster asset materialize --select` takes them, and the
    environment in which it finds them.

    Where that recipe is one of ERNIE_PIPELINE_RECIPES they are its assets there, so that Dagster's pages of it show the
    run; else that variable is not for this run.
    """
    recipe = environment.get("ERNIE_PIPELINE_RECIPE") or "demo"
    if recipe in named(environment.get(VARIABLE, "")):
        return " or ".join(f'key:"{called(recipe)}/{asset}"' for asset in assets), dict(environment)
    return ",".join(assets), {name: value for name, value in environment.items() if name != VARIABLE}


def asset_of_step(step: str, recipes: Iterable[str]) -> str:
    """What the asset of a step is called in the table of stages: `math_split` of the step `mine__math_split`."""
    prefixes = (f"{called(recipe)}__" for recipe in recipes)
    return next((step.removeprefix(prefix) for prefix in prefixes if step.startswith(prefix)), step)
