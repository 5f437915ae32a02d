"""A home, a recipe and a copy of the package: all that decides what is stale, to be changed by a scenario."""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ernie_pipeline
from ernie_pipeline_tests.scenarios.chain import (
    IN_PROCESS,
    Home,
    Planned,
    Run,
    Started,
    finish,
    plan,
    refresh,
    row,
    rows,
    start,
)
from ernie_pipeline_tests.scenarios.homes import copy_objects

SOURCE = "rows.jsonl"
ROWS = rows(range(100, 300))
"""What the recipe of the scenarios reads, beside it."""
DROPPED = row("1 + 1 = ?", "2")
"""A further row, that the filters drop: shorter than any problem may be."""

PACKAGE = Path(ernie_pipeline.__file__).parent


@dataclass(frozen=True)
class Workplace(Home):
    """Where a scenario works. `code` holds the copy of the package, so that nobody else's edit makes anything stale."""

    recipe: Path
    code: Path

    def start(self, select: str = "*", *, config: dict[str, Any] | None = None, **environment: str) -> Started:
        """`dagster asset materialize` under way, all steps in one process unless `config` says otherwise."""
        settings = {"recipe": self.recipe, "ahead": self.code, **environment}
        return start(self.home, select=select, config=IN_PROCESS if config is None else config, **settings)

    def materialize(self, select: str = "*", *, config: dict[str, Any] | None = None, **environment: str) -> Run:
        """The same, waited for."""
        return finish(self.start(select, config=config, **environment))

    def plan(self, **environment: str) -> Planned:
        """What `python -m ernie_pipeline plan --json` says."""
        return plan(self.home, recipe=self.recipe, ahead=self.code, **environment)

    def refresh(self, **environment: str) -> Run:
        """`python -m ernie_pipeline refresh`."""
        return refresh(self.home, recipe=self.recipe, ahead=self.code, **environment)

    def copy(self, folder: Path, code: bool = False) -> "Workplace":
        """The same in `folder`, with a copy of home, recipe and, if asked for, code."""
        shutil.copytree(self.home, folder / "home")
        copy_objects(self.home, folder / "home")
        shutil.copy(self.recipe, folder / "recipe.toml")
        copied = replace(self, home=folder / "home", recipe=folder / "recipe.toml")
        return replace(copied, code=copy_package(folder / "code", self.code)) if code else copied

    def edit_recipe(self, old: str, new: str) -> None:
        """Replace a line of the recipe."""
        edit(self.recipe, old, new)

    def edit_code(self, module: str, old: str, new: str) -> None:
        """Replace a text in the copy's module, named as in "data/read/lines.py"."""
        edit(self.code / "ernie_pipeline" / module, old, new)


def copy_package(folder: Path, origin: Path = PACKAGE.parent) -> Path:
    """A copy of the package in `folder`, which it gives back, with what of it is compiled already."""
    ignored = shutil.ignore_patterns("*.pyc.*")  # just being written
    shutil.copytree(origin / "ernie_pipeline", folder / "ernie_pipeline", ignore=ignored)
    return folder


def edit(file: Path, old: str, new: str) -> None:
    """Replace a text that stands in the file once."""
    text = file.read_text()
    assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {file}"
    file.write_text(text.replace(old, new))


def short(version: str) -> str:
    """A data version as the plan's reasons show it."""
    return version.rpartition(":")[2][:8]
