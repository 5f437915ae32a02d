"""What processes of a user remember between them: small sealed files that may be lost at any time."""

import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

from ernie_pipeline.store.sealed import write_sealed


def users_cache() -> Path:
    """The user's folder for it, which may not be there yet."""
    from platformdirs import user_cache_path

    return user_cache_path("ernie_pipeline", appauthor=False)


def remember(entry: Path, values: dict[str, Any]) -> None:
    """`write_sealed`, whole or not at all, and no error where nothing can be written; of several at once, one stays."""
    if not entry.is_absolute():  # the folder of a user who has none: "~/.cache"
        return
    made = entry.with_name(f".{uuid.uuid4().hex}")
    with suppress(OSError, UnicodeError):  # a full or a read-only disk, a path that is no text
        entry.parent.mkdir(parents=True, exist_ok=True)
        write_sealed(made, values)
        made.replace(entry)
    with suppress(OSError):
        made.unlink()
