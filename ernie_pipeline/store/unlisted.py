"""What is in a folder, compared with the list of what should be: nothing of it is read."""

import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path

LEFT_BY_OTHERS = re.compile(
    r"\.DS_Store|\._.+"  # macOS's file browser, and its file attributes on other file systems
    r"|Thumbs\.db|desktop\.ini"  # that of Windows, by way of a network drive
    r"|\.directory"  # KDE's
    r"|\.nfs[0-9a-f]+|\.fuse_hidden[0-9a-f]+"  # a removed file that some process still has open
)
"""Files that a look at a folder leaves in it, or a file system does. They make no artifact an altered one: whoever
browses the store would otherwise cost a training. Nothing reads a file of such a name."""


def unlisted(folder: Path, listed: Collection[str], tolerated: "re.Pattern[str] | None" = None) -> str:
    """What is in the folder, or below it, that the list does not name, in a clause; "" if there is nothing.

    `listed`: paths in the folder, with slashes; what matches `tolerated` may be there too. A link is never listed: what
    it names may change without it, so one in the place of a file counts too. An empty folder holds nothing that anyone
    could read, and counts for nothing.
    """
    for name, entry in _entries(folder):
        if entry is None:
            return f"{shown(name)} cannot be read"
        if entry.is_symlink():
            return f"{shown(name)} is a link"
        harmless = LEFT_BY_OTHERS.fullmatch(entry.name) or (tolerated and tolerated.fullmatch(name))
        if name not in listed and not (harmless and entry.is_file(follow_symlinks=False)):
            return f"{shown(name)} is not in its manifest"
    return ""


def shown(name: str) -> str:
    """A file's name for a sentence: one with bytes that are no text, or line breaks, is escaped."""
    return name if name.isprintable() else ascii(name)


def _entries(folder: Path) -> Iterator[tuple[str, os.DirEntry[str] | None]]:
    """All but the folders, by their paths; None for a folder that cannot be read. However deep they are."""
    waiting = [""]
    while waiting:
        above = waiting.pop()
        try:
            with os.scandir(folder / above) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError:
            yield above or ".", None
            continue
        for entry in entries:
            name = f"{above}/{entry.name}" if above else entry.name
            if entry.is_dir(follow_symlinks=False):
                waiting.append(name)
            else:
                yield name, entry
