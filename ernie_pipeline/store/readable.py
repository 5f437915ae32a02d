"""Reading what anyone may have altered: a file that is none, is not text or makes no sense is "not readable".

Only files are opened, since to open a pipe waits for whoever writes into it, for ever. And only values that are nested
as deep as ours are taken: Python's own functions, and ours, walk deeper ones until there is no stack left.
"""

import json
import os
import stat
from pathlib import Path
from typing import Any

DEEPEST = 32
"""Levels of lists and objects in one another; what is written here has at most ten."""

NOT_READABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError)
"""What reading, parsing and taking apart of what is kept may raise; pydantic's errors are ValueErrors."""


def read_file(file: Path) -> bytes:
    """The bytes of a file, or of the one that a link names. Raises `OSError` for anything that is no file."""
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as stream:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(f"{file} is no file")
        return stream.read()


def parse_json(text: bytes | str) -> Any:
    """The values of a JSON text. Raises `ValueError` for whatever else it is, and for one that is nested too deep."""
    try:
        values = json.loads(text)
    except RecursionError:
        raise ValueError("nested too deep") from None
    level, depth = [values], 0
    while level:
        if depth > DEEPEST:
            raise ValueError("nested too deep")
        level = [inner for value in level for inner in _inside(value)]
        depth += 1
    return values


def read_json(file: Path) -> Any:
    """The values of a JSON file. Raises `OSError` or `ValueError`."""
    return parse_json(read_file(file))


def _inside(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []
