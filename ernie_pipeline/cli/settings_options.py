"""--home, --recipe and --source: the settings of a command, said for this once instead of in the environment."""

import functools
import inspect
import os
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from ernie_pipeline.registry.registered_names import NothingRegistered
from ernie_pipeline.utils.errors import PipelineError

PANEL = "Settings"
VARIABLES = {
    "home": "ERNIE_PIPELINE_HOME",
    "recipe": "ERNIE_PIPELINE_RECIPE",
    "source": "ERNIE_PIPELINE_SOURCE",
}
"""Where each is read: by this process and by all that it starts."""

Home = Annotated[
    str | None,
    typer.Option("--home", metavar="PLACE", help="of store and MLflow (.ernie)", rich_help_panel=PANEL),
]
RecipeName = Annotated[
    str | None, typer.Option("--recipe", metavar="RECIPE", help="a preset or a TOML file (demo)", rich_help_panel=PANEL)
]
SourceName = Annotated[
    str | None,
    typer.Option("--source", metavar="ROWS", help="other rows, for the recipe", rich_help_panel=PANEL),
]
GIVEN: dict[str, str] = {}
"""What this command was given by option, and a next one has to be given again."""

OPTIONS = {"home": Home, "recipe": RecipeName, "source": SourceName}


def with_settings(function: Callable[..., Any]) -> Callable[..., Any]:
    """The command with these options too, but for those whose names its own parameters have."""
    own = inspect.signature(function, eval_str=True)
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=option)
        for name, option in OPTIONS.items()
        if name not in own.parameters
    ]

    @functools.wraps(function)
    def command(**values: Any) -> Any:
        set_settings({each.name: values.pop(each.name) for each in added})
        try:
            return function(**values)
        except NothingRegistered as error:
            raise NothingRegistered(error.tracking_uri, with_options("ernie run")) from None
        except PipelineError as error:
            raise PipelineError(as_typed(str(error))) from error

    command.__signature__ = own.replace(parameters=[*own.parameters.values(), *added])  # type: ignore[attr-defined]
    command.__annotations__ = {each.name: each.annotation for each in [*own.parameters.values(), *added]}
    return command


def set_settings(values: dict[str, str | None]) -> None:
    """Put what was given into the environment. Raises `PipelineError` for an empty one, as of a variable that is not
    set in a shell: the default, another recipe or home, was not meant."""
    for name, value in values.items():
        if value is not None and not value.strip():
            raise PipelineError(f"--{name} is given without a value; name one, or leave --{name} out")
    given = {name: value for name, value in values.items() if value}
    GIVEN.update(given)
    os.environ.update({VARIABLES[name]: value for name, value in given.items()})


def with_options(command: str, *but: str) -> str:
    """The command to be run next, with the options that this one was given: it is about the same home and rows.

    What is set in the environment holds for it anyway; `but`: options that `command` has already.
    """
    return " ".join([command, *(f"--{name} {shlex.quote(GIVEN[name])}" for name in _given() if name not in but)])


def as_typed(words: str) -> str:
    """A sentence that names a setting by its variable, with the name by which this command was given it."""
    for name in _given():
        if f"--{name}" not in words:
            words = words.replace(VARIABLES[name], f"--{name}")
    return words


def with_variables(command: str) -> str:
    """The same of a command that is not ours: the options as variables before it."""
    return " ".join([*(f"{VARIABLES[name]}={shlex.quote(GIVEN[name])}" for name in _given()), command])


def _given() -> list[str]:
    return [name for name in VARIABLES if name in GIVEN]


@contextmanager
def environment_put_back() -> Iterator[None]:
    """What the options put into the environment is gone afterwards: for a caller in the same process."""
    before = {name: os.environ.get(name) for name in VARIABLES.values()}
    try:
        yield
    finally:
        GIVEN.clear()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
