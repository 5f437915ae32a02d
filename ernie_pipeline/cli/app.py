"""Build what is stale, ask what came of it, and look after the store and the registry.

Exit status: 0 all is fresh (or done); 1 an error; 2 the command line was wrong; 3 something is stale (or damaged, or
differs, or was not checked); 4 a build that is estimated to pass the budget, and was not started; 130 interrupted.
"""

import functools
import io
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.metadata import version
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from ernie_pipeline.cli.output import CLOSED, ERROR, INTERRUPTED, USAGE, is_terminal
from ernie_pipeline.cli.settings_options import (
    Home,
    RecipeName,
    SourceName,
    environment_put_back,
    set_settings,
    with_settings,
)
from ernie_pipeline.cli.table import COMMANDS, Entry
from ernie_pipeline.cli.usage import usage_sentence
from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline.utils.near import did_you_mean
from ernie_pipeline.utils.shares import as_shown

NAME = "ernie"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit status."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # an answer may hold what the terminal cannot show
    logging.getLogger("transformers.tokenization_utils_base").addFilter(_not_on_long_text)
    try:
        with environment_put_back():
            return int(_group(COMMANDS, root=True).main(arguments, prog_name=NAME, standalone_mode=False) or 0)
    except typer.TyperException as error:
        return _told_with_usage(error)
    except PipelineError as error:
        print(as_shown(f"error: {error}"), file=sys.stderr)
        return ERROR
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED


def _not_on_long_text(record: logging.LogRecord) -> bool:
    """Not what tokenizers warn of a text that a model might not read: who has a limit says so in words of our own."""
    return not str(record.msg).startswith("Token indices sequence length is longer")


def _told_with_usage(error: typer.TyperException) -> int:
    context: Any = getattr(error, "ctx", None)
    if context is not None:
        print(context.get_usage(), file=sys.stderr)
    print(f"error: {usage_sentence(error)}", file=sys.stderr)
    return USAGE


class Commands(TyperGroup):
    """A group whose commands are loaded when they are run, and not to list them."""

    entries: Mapping[str, Entry] = {}

    def list_commands(self, ctx: Any) -> list[str]:
        """Those that are not hidden, in the table's order."""
        return [name for name, entry in self.entries.items() if not entry.hidden]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """What the help and the completion tell of it, without loading it."""
        entry = self.entries.get(cmd_name)
        if entry is None:
            return None
        if entry.group:
            return _group(entry.group, name=cmd_name, help=entry.help)
        return TyperCommand(cmd_name, help=entry.help, rich_markup_mode=_markup(), hidden=entry.hidden)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that the first argument names, loaded."""
        entry = self.entries.get(args[0])
        if entry is None:
            hint = did_you_mean(args[0], self.entries) or f"the commands are {', '.join(self.list_commands(ctx))}"
            raise ctx.fail(f"there is no command {args[0]!r}; {hint}")
        command = self.get_command(ctx, args[0]) if entry.group else load(args[0], entry)
        return args[0], command, args[1:]


def load(name: str, entry: Entry) -> Any:
    """The command, from its module."""
    module, _, function = entry.where.partition(":")
    run = getattr(import_module(f"ernie_pipeline.cli.{module}"), function)
    app = typer.Typer(add_completion=False, rich_markup_mode=_markup())
    app.command(name, help=entry.told)(_until_closed(with_settings(run) if entry.settings else run))
    return typer.main.get_command(app)


def _until_closed(run: Callable[..., Any]) -> Callable[..., Any]:
    """The same, ended as quietly as a shell's own commands where "| head" has seen enough."""

    @functools.wraps(run)
    def command(*arguments: Any, **values: Any) -> Any:
        try:
            return run(*arguments, **values)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return CLOSED

    return command


def _group(entries: Mapping[str, Entry], *, root: bool = False, name: str = NAME, help: str = "") -> Any:
    kind = type("Commands", (Commands,), {"entries": entries})
    app = typer.Typer(
        name=name,
        help=help or _paragraphs(__doc__ or ""),
        cls=kind,
        add_completion=root,
        rich_markup_mode=_markup(),
        subcommand_metavar="COMMAND",
    )
    app.callback()(_root if root else _nothing)
    return typer.main.get_command(app)


def _root(
    home: Home = None,
    recipe: RecipeName = None,
    source: SourceName = None,
    version: Annotated[
        bool, typer.Option("--version", callback=lambda asked: _version(asked), is_eager=True, help="print the version")
    ] = False,
) -> None:
    set_settings({"home": home, "recipe": recipe, "source": source})


def _paragraphs(text: str) -> str:
    """Each paragraph in one line: it is wrapped for the terminal that it comes to."""
    return "\n\n".join(" ".join(part.split()) for part in text.strip().split("\n\n"))


def _nothing() -> None:
    """A group has no options of its own."""


def _version(asked: bool) -> None:
    if asked:
        print(f"ernie_pipeline {version('ernie_pipeline')}")
        raise typer.Exit


def _markup() -> Any:
    """Boxes and colours for a terminal, plain lines for all else."""
    return "rich" if is_terminal(sys.stdout) else None
