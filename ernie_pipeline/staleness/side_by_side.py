"""What the other recipes of ERNIE_PIPELINE_RECIPES ask for in the store that they share: it is not to be pruned."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

from ernie_pipeline.recipe.settings import Settings
from ernie_pipeline.staleness.chain import Chain
from ernie_pipeline.staleness.plan import asked_for, make_plan
from ernie_pipeline.staleness.stages import open_chain

Held = Callable[[Path], str]


def other_chains(settings: Settings) -> dict[str, Chain]:
    """Of each recipe that stands beside the settings' own, by its name. Raises `PipelineError` for one that cannot be
    read: what it needs is not known then."""
    others = [recipe for recipe in settings.recipes if recipe != settings.recipe]
    return {recipe: open_chain(replace(settings, recipe=recipe), ask_registry=False) for recipe in others}


def held_besides(chains: Mapping[str, Chain], held: Mapping[str, Held]) -> dict[str, Held]:
    """`held`, see `store.housekeeping.artifacts.take_stock`, and what the `chains` ask for besides.

    Where a source of theirs is away, asking raises `PipelineError`, and all is kept.
    """

    @cache
    def asked(recipe: str) -> Mapping[str, str]:
        return asked_for(chains[recipe], make_plan(chains[recipe]))

    def why(asset: str, folder: Path) -> str:
        own = held[asset](folder) if asset in held else ""
        by = [recipe for recipe in chains if asked(recipe).get(asset) == folder.name]
        return own or (f"asked for by {', '.join(by)}" if by else "")

    assets = {*held, *(name for chain in chains.values() for name in chain.stages)}
    return {asset: partial(why, asset) for asset in sorted(assets)}
