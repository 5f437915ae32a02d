"""What was found in modules' texts, kept from process to process: to parse them is most of opening a code location.

Every command, every step and every look of the schedule opens one. An entry stands for its text and for the code that
read it, so it is never out of date; a file that is lost, damaged or not writable costs the parsing again.
"""

import hashlib
import json
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from ernie_pipeline.store.sealed import read_sealed
from ernie_pipeline.store.user_cache import remember, users_cache

MOST = 800
"""Entries that are kept; this package has three hundred modules, and each edit of one makes an entry."""


class Parsed:
    """What `parse` (values of JSON's types, from a text) made of the texts so far. `reader`: the file of its code."""

    def __init__(self, parse: Callable[[str], Any], reader: Path, place: Path | None = None):
        self._parse, self._place = parse, place or users_cache() / "modules.json"
        self._salt = reader.read_bytes() + repr(sys.version_info[:2]).encode()  # a syntax tree is Python's
        self._found: dict[str, Any] | None = None
        self._is_new = False

    def of(self, text: str) -> Any:
        """What `parse` makes of `text`."""
        if self._found is None:
            found: Any = None
            # another version of this package keeps its own values in that place
            with suppress(KeyError, TypeError, ValueError, RecursionError):
                found = json.loads(read_sealed(self._place)[0]["parsed"])
            self._found = found if isinstance(found, dict) else {}
        key = hashlib.sha256(self._salt + text.encode()).hexdigest()
        if key in self._found:
            self._found[key] = self._found.pop(key)  # what is asked for moves to the end: the others are let go first
        else:
            self._found[key] = self._parse(text)
            self._is_new = True
        return self._found[key]

    def keep(self) -> None:
        """Write what is new: whole or not at all. Of two processes at once, one's is parsed again."""
        if self._is_new and self._found:
            self._is_new = False
            # as one text: a sealed file is read and compared at each start, and many small values cost twice as much
            remember(self._place, {"parsed": json.dumps(dict(list(self._found.items())[-MOST:]))})
