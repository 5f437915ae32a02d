"""A stage: what its output depends on, declared; and what it may see of that while it works."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ernie_pipeline.recipe.sections import Recipe
from ernie_pipeline.store.artifacts import Artifact, Provenance
from ernie_pipeline.store.row_cache import KeptRows

EARLIER_SOLUTIONS, EARLIER_ADAPTER = "verified_solutions (round before)", "qlora_adapter (round before)"
EARLIER_ROUND = (EARLIER_SOLUTIONS, EARLIER_ADAPTER)
"""Inputs that are artifacts of the round before, which is a chain of its own; `asset_of` says of which asset."""


@dataclass(frozen=True)
class ByRow:
    """What the outcome of a stage's dear work on one row depends on besides the row: each a part of the stage's own.

    So a change elsewhere, such as in how answers are graded, makes the stage stale and none of these rows.
    """

    inputs: tuple[str, ...]
    recipe: tuple[str, ...]
    code: tuple[str, ...]
    libraries: tuple[str, ...]


@dataclass(frozen=True)
class Stage:
    """One built asset. Its fingerprint covers exactly what is named here.

    `inputs`: the observed and built assets that it reads. `recipe`: the sections ("lora") or single keys
    ("source.max_bad_rows") that it reads. `code`: the modules in which its work is done; what they import inside this
    package counts with them. `libraries`: the distributions whose version decides the output. `labels`: recipe sections
    that it may name to people, such as where the rows came from; they decide nothing and are not fingerprinted.
    `by_row`: for a stage whose work is kept row by row.
    """

    name: str
    inputs: tuple[str, ...]
    recipe: tuple[str, ...]
    code: tuple[str, ...]
    libraries: tuple[str, ...]
    labels: tuple[str, ...] = ()
    by_row: ByRow | None = None


@dataclass(frozen=True)
class ObservedSource:
    """An observed asset: its version stands for the whole recipe section `section` and for what that names."""

    section: str
    version: Callable[[Recipe], str]


@dataclass(frozen=True)
class Work:
    """What a stage sees while it works: what its fingerprint covers, and nothing besides.

    `recipe` is a `DeclaredRecipe`. `artifacts` are its built inputs by name, `made_from.inputs` every input's version.
    `unfinished` is a folder of this fingerprint's own, not there until it is made, in which a build leaves what the
    next one may go on from: it outlives one that fails, is cancelled or killed, and goes once the artifact stands. What
    is in it may be half-written, or damaged since. `rows`: where a stage that works by row keeps its rows.
    """

    recipe: Any
    made_from: Provenance
    artifacts: Mapping[str, Artifact]
    unfinished: Path
    rows: KeptRows | None = None

    def folder(self, name: str) -> Path:
        """The folder of a built input's artifact."""
        return self.artifacts[name].folder


class DeclaredRecipe:
    """The part of a recipe that a stage declared; to read another key of it is an error of the stage.

    Of sections that stand in it by name, such as those of suites, one is had as in a mapping.

    So no recipe key can decide an output without being in the output's fingerprint.
    """

    def __init__(self, recipe: Any, declared: frozenset[str], stage: str, place: str = ""):
        self._recipe, self._declared, self._stage, self._place = recipe, declared, stage, place

    def __getattr__(self, name: str) -> Any:
        return self._declared_only(name, getattr(self._recipe, name))

    def __getitem__(self, name: str) -> Any:
        return self._declared_only(name, self._recipe[name])

    def _declared_only(self, name: str, value: Any) -> Any:
        path = f"{self._place}{name}"
        if path in self._declared:
            return value
        if any(key.startswith(f"{path}.") for key in self._declared):
            return DeclaredRecipe(value, self._declared, self._stage, f"{path}.")
        raise RuntimeError(
            f"{self._stage} reads recipe.{path}, which its stage does not declare: a change of it would go unnoticed"
        )


def section(recipe: Recipe, path: str) -> Any:
    """The value of the recipe's section or key `path` ("lora", "source.split"), as plain JSON values."""
    value: Any = recipe.model_dump(mode="json")
    for part in path.split("."):
        value = value[part]
    return value
