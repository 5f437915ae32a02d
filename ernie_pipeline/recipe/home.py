"""Who may use a home: its user, or a group that shares it; anybody else is told at once, and which file it is about."""

import os
import pwd
import stat
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path

from ernie_pipeline.utils.errors import PipelineError

LISTED = (".builds", ".locks", ".rows", ".runs", ".unfinished", ".bases")
"""Folders of the store in which each entry is written by whoever comes next."""


def check_rights(home: Path, to_write: bool) -> None:
    """Raise `PipelineError` for a home that this user may not read or, if `to_write`, not write.

    Looked at are the folders and the files that every run opens; not the artifacts, of which each is written once.
    """
    act, wanted = ("write", os.R_OK | os.W_OK) if to_write else ("read", os.R_OK)
    for place in _opened(home):
        try:
            is_folder = stat.S_ISDIR(place.stat().st_mode)
        except PermissionError:
            raise refusal(home, place, "read") from None
        except OSError:  # it is not there, or a link that leads nowhere
            continue
        if not os.access(place, wanted | (os.X_OK if is_folder else 0)):
            raise refusal(home, place, act)


def refusal(home: Path, place: Path, act: str) -> PipelineError:
    """What to tell whoever may not `act`, read or write, on a place in the home, or on one above that leads there."""
    place = next(seen for seen in (place, *place.parents) if os.path.lexists(seen))
    told, owner = f"ERNIE_PIPELINE_HOME = {str(home)!r}", place.lstat().st_uid
    whose = "yours" if owner == os.geteuid() else f"{_name(owner)}'s"
    if not place.is_relative_to(home):
        return PipelineError(
            f"{told} cannot be used: you may not {act} {place}, which is {whose}; set it to a folder that you may"
        )
    if owner == os.geteuid():
        return PipelineError(
            f"{told} cannot be used: you may not {act} {place}, which is yours; run chmod -R u+rwX {home}"
        )
    return PipelineError(
        f"{told} is another user's: you may not {act} {place}, which is {whose}; set it to a folder of your own, or "
        f"ask for the home to be shared with a group of yours: chgrp -R GROUP {home}; chmod -R g+rwX {home}; "
        f"find {home} -type d -exec chmod g+s {{}} +"
    )


def share_with_group(home: Path) -> None:
    """Where the home's group may write in it, let it write whatever this process and its children make from now on.

    For the whole process, since other libraries make files there too: MLflow, Arrow, SQLite.
    """
    if home.stat().st_mode & stat.S_IWGRP:
        os.umask(os.umask(0o077) & ~stat.S_IRWXG)


def _opened(home: Path) -> Iterator[Path]:
    store = home / "store"
    yield from (home, home / "mlflow.db", home / "mlartifacts", store)
    yield from chain(_entries(store), *(_entries(store / name) for name in LISTED))


def _entries(folder: Path) -> list[Path]:
    """None where it is no folder: what that is about is said elsewhere."""
    with suppress(OSError):
        return sorted(folder.iterdir())
    return []


def _name(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return f"user {user}"
