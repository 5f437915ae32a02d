"""The recipes whose assets this code location holds: one, or several side by side over one store.

With ERNIE_PIPELINE_RECIPES=demo,mine.toml each recipe has its own assets, with its name before theirs
(`mine/math_split`, in the group `mine`), its own job, schedule, sensor and stale marks. Without, the assets are those
of ERNIE_PIPELINE_RECIPE, with no name before theirs.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import dagster as dg

from ernie_pipeline.orchestration.opened import opened_before
from ernie_pipeline.recipe.registered_name import rows_of
from ernie_pipeline.recipe.settings import Settings
from ernie_pipeline.recipe.side_by_side import VARIABLE, called
from ernie_pipeline.staleness.stages import declared_versions
from ernie_pipeline.utils.errors import PipelineError

COMPARED = "recipes_compared"
"""The asset that compares them, where there are several."""
VALIDATES = "DAGSTER_IS_DEFS_VALIDATION_CLI"
"""Set by `dagster definitions validate`, for itself and for the server that it may start."""


@dataclass(frozen=True)
class RecipeAssets:
    """One recipe, and what its assets are called here. `name`: "" for the only one of a code location."""

    recipe: str
    name: str = ""

    def settings(self) -> Settings:
        """Those of the environment now, with this recipe; the only one is whichever the environment names now."""
        found = Settings.from_environment()
        return replace(found, recipe=self.recipe) if self.name else found

    @cached_property
    def versions(self) -> dict[str, str]:
        """Of each built asset as it was when this was asked first, by its name."""
        return declared_versions(self.settings())

    @cached_property
    def shown(self) -> list[str]:
        """The built assets that are there: those that it asks for, and in a run's process those that were there when
        the run was planned."""
        return list(dict.fromkeys([*self.versions, *opened_before(self.recipe)]))

    def key(self, asset: str) -> dg.AssetKey:
        """Of the asset that is called `asset` in the table of stages."""
        return dg.AssetKey([self.name, asset] if self.name else asset)

    def called(self, word: str) -> str:
        """A job's, schedule's or sensor's name: `refresh`, `refresh_mine`."""
        return f"{word}_{self.name}" if self.name else word

    def group(self, usual: str) -> str:
        """The group of an asset that is in `usual` where there is one recipe."""
        return self.name or usual

    def in_run(self, run: str) -> str:
        """What stands for a run where each recipe has something of its own in it."""
        return f"{run}.{self.name}" if self.name else run


@dataclass(frozen=True)
class Made:
    """What makes an asset for each recipe."""

    name: str
    make: Callable[[RecipeAssets], Any] = field(repr=False)

    def __call__(self, recipe: RecipeAssets) -> Any:
        return self.make(recipe)


def each_recipe(
    *,
    group_name: str,
    name: str = "",
    deps: Iterable[str] = (),
    check_specs: Sequence[dg.AssetCheckSpec] = (),
    **options: Any,
) -> Callable[[Callable[..., Any]], Made]:
    """As `dagster.asset`, for the assets of each recipe. `deps`: names of the table of stages."""

    def decorate(function: Callable[..., Any]) -> Made:
        asset = name or function.__name__

        def make(recipe: RecipeAssets) -> dg.AssetsDefinition:
            made: dg.AssetsDefinition = dg.asset(
                key=recipe.key(asset),
                deps=[recipe.key(above) for above in deps],
                group_name=recipe.group(group_name),
                check_specs=[spec._replace(asset_key=recipe.key(asset)) for spec in check_specs],
                **options,
            )(function)
            return made

        return Made(asset, make)

    return decorate


def each_recipe_observes(*, group_name: str, name: str = "", **options: Any) -> Callable[[Callable[..., Any]], Made]:
    """As `dagster.observable_source_asset`, for the sources of each recipe."""

    def decorate(function: Callable[..., Any]) -> Made:
        asset = name or function.__name__

        def make(recipe: RecipeAssets) -> Any:
            decorator = dg.observable_source_asset(
                key=recipe.key(asset), group_name=recipe.group(group_name), **options
            )
            return decorator(function)

        return Made(asset, make)

    return decorate


def recipes_of(settings: Settings) -> list[RecipeAssets]:
    """The recipes that the settings name. Raises `PipelineError` for two that cannot stand side by side."""
    if not settings.recipes:
        return [RecipeAssets(settings.recipe)]
    found = [RecipeAssets(recipe, called(recipe)) for recipe in settings.recipes]
    for number, one in enumerate(found):
        for other in found[number + 1 :]:
            if one.name == other.name:
                raise PipelineError(
                    f"{VARIABLE}: the assets of {one.recipe} and {other.recipe} would both be called {one.name}; "
                    "rename one of the files"
                )
    check_registered_names(found)
    return found


def check_where_validated(recipes: Iterable[RecipeAssets]) -> None:
    """Raise `PipelineError` for a recipe that cannot be read, in `dagster definitions validate`.

    A server opens without: there the steps of this recipe say it, and the others go on.
    """
    if os.environ.get(VALIDATES):
        for each in recipes:
            each.settings().load_recipe()


def check_registered_names(recipes: Sequence[RecipeAssets]) -> None:
    """Raise `PipelineError` where two recipes of different rows would register versions of one model."""
    taken: dict[str, tuple[str, tuple[str, str]]] = {}
    for each in recipes:
        try:
            recipe = each.settings().load_recipe()
        except PipelineError:  # is told by its own steps
            continue
        name, rows = recipe.registry.model_name, rows_of(recipe.source.model_dump())
        first, of_first = taken.setdefault(name, (each.recipe, rows))
        if rows != of_first:
            raise PipelineError(
                f'{VARIABLE}: the recipes {first} and {each.recipe} both register their models as "{name}", and read '
                "other rows; give one of them another registry.model_name"
            )


def recipe_of(key: dg.AssetKey, settings: Settings | None = None) -> tuple[RecipeAssets, str]:
    """Whose asset has the key, and what it is called in the table of stages.

    Raises `PipelineError` for a recipe that the environment does not name (any more).
    """
    settings = settings or Settings.from_environment()
    *prefix, asset = key.path
    if not prefix:
        return RecipeAssets(settings.recipe), asset
    for recipe in settings.recipes:
        if [called(recipe)] == prefix:
            return RecipeAssets(recipe, called(recipe)), asset
    raise PipelineError(f"{VARIABLE} names no recipe called {'/'.join(prefix)} any more; reload the code location")
