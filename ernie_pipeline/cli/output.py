"""What the commands' answers have in common: their exit status, and values for programs or text for people."""

import json
import os
import signal
from typing import Annotated, Any, TextIO

import typer

FRESH, ERROR, USAGE, STALE, OVER_BUDGET = 0, 1, 2, 3, 4
INTERRUPTED, CLOSED = 128 + signal.SIGINT, 128 + signal.SIGPIPE
"""What a shell calls the exit status of a command that these signals ended."""

PLAIN = frozenset({"dumb", "unknown", "xterm-color"})
"""Values of TERM where no line can be written over. The last is that of IPython's kernel, whose "!command" has a
pseudo-terminal although a notebook keeps all that is written to it."""

AsJson = Annotated[bool, typer.Option("--json", help="print JSON, for programs")]


def print_answer(as_json: bool, values: dict[str, Any], text: str) -> None:
    """Print `values` as JSON where that is asked for, else `text`."""
    print(json.dumps(values, indent=1) if as_json else text)


def is_terminal(stream: TextIO) -> bool:
    """Whether lines that live can be shown; FORCE_COLOR, which asks for colours, does not make a pipe a terminal."""
    return stream.isatty() and os.environ.get("TERM") not in PLAIN
