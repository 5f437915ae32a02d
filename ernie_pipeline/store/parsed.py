"""What was found in modules' texts, kept from process to process: to parse them is most of opening a code location.

Every command, every step and every look of the schedule opens one. An entry stands for its text and for the code that
read it, so it is never out of date; a file that is lost, damaged or not writable costs the parsing again.
"""

import hashlib
import sys
import uuid
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from ernie_pipeline.manifest import read_sealed, write_sealed

MOST = 2000
"""Entries that are kept; this package has a hundred modules, and each edit of one makes an entry."""


class Parsed:
    """What `parse` (values of JSON's types, from a text) made of the texts so far. `reader`: the file of its code."""

    def __init__(self, parse: Callable[[str], Any], reader: Path, place: Path | None = None):
        self._parse, self._place = parse, place or _users_cache()
        self._salt = reader.read_bytes() + repr(sys.version_info[:2]).encode()  # a syntax tree is Python's
        self._found: dict[str, Any] | None = None
        self._is_new = False

    def of(self, text: str) -> Any:
        """What `parse` makes of `text`."""
        if self._found is None:
            entries, problem = read_sealed(self._place)
            self._found = {} if problem else dict(entries["found"])
        key = hashlib.sha256(self._salt + text.encode()).hexdigest()
        if key not in self._found:
            self._found[key] = self._parse(text)
            self._is_new = True
        return self._found[key]

    def keep(self) -> None:
        """Write what is new: whole or not at all. Of two processes at once, one's is parsed again."""
        if not self._is_new or not self._found or not self._place.is_absolute():
            return
        self._is_new = False
        made = self._place.with_name(f".{uuid.uuid4().hex}")
        with suppress(OSError):  # a full or a read-only disk
            made.parent.mkdir(parents=True, exist_ok=True)
            write_sealed(made, {"found": dict(list(self._found.items())[-MOST:])})
            made.replace(self._place)
        with suppress(OSError):
            made.unlink()


@cache
def _users_cache() -> Path:
    from platformdirs import user_cache_path

    return user_cache_path("ernie_pipeline", appauthor=False) / "modules.json"
