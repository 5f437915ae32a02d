"""The sets of rows that the store keeps (see `store/row_cache.py`): which there are, and removing those out of use."""

import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ernie_pipeline.store.aside import is_folder
from ernie_pipeline.store.housekeeping.disk_usage import last_change, size_of
from ernie_pipeline.store.housekeeping.quantized_bases import ASKED_FOR, PERHAPS
from ernie_pipeline.store.readable import NOT_READABLE, read_json
from ernie_pipeline.store.row_cache import ABOUT, FOLDER
from ernie_pipeline.store.sealed import remove_folder
from ernie_pipeline.utils.text_table import human_size

KEPT_DAYS = 14
"""How long a set that the recipe does not ask for is left alone after its last use."""


@dataclass(frozen=True)
class KeptSet:
    """A set of kept rows. `size` in bytes; `about` is what its rows have in common, {} where that cannot be read;
    `needed_for` is why prune keeps it, empty if it may go."""

    key: str
    size: int
    about: dict[str, Any]
    needed_for: tuple[str, ...] = ()


def take_stock(root: Path, asked_for: Collection[str] | None) -> tuple[KeptSet, ...]:
    """The sets in the store `root`. `asked_for`: the keys that the recipe asks for; None where that is not known, when
    all are kept."""
    folders = sorted(path for path in (root / FOLDER).glob("*") if is_folder(path) and not path.name.startswith("."))
    return tuple(KeptSet(p.name, size_of(p), _about(p), _needed_for(p, asked_for)) for p in folders)


def notes(sets: Collection[KeptSet]) -> list[str]:
    """A sentence where sets are kept for no other reason than that it is not known which of them are asked for."""
    kept = [each.size for each in sets if each.needed_for == (PERHAPS,)]
    if not kept:
        return []
    are = "1 set of kept answers is" if len(kept) == 1 else f"{len(kept)} sets of kept answers are"
    return [
        f"{are} left, {human_size(sum(kept))}, since what is to be built above decides which of them the recipe asks "
        'for: build what "ernie plan" calls stale, then look again'
    ]


def prune(root: Path, sets: Collection[KeptSet], delete: bool = False) -> tuple[KeptSet, ...]:
    """Those that may go, removed if `delete`; one that was used since stays."""
    gone = []
    for each in sets:
        folder = root / FOLDER / each.key
        if not each.needed_for and not _young(folder):
            if delete:
                remove_folder(folder)
            gone.append(each)
    return tuple(gone)


def _needed_for(folder: Path, asked_for: Collection[str] | None) -> tuple[str, ...]:
    reasons = {
        ASKED_FOR: asked_for is not None and folder.name in asked_for,
        PERHAPS: asked_for is None,
        f"used in the last {KEPT_DAYS} days": _young(folder),
    }
    return tuple(reason for reason, holds in reasons.items() if holds)


def _young(folder: Path) -> bool:
    return time.time() - last_change(folder) < KEPT_DAYS * 24 * 3600


def _about(folder: Path) -> dict[str, Any]:
    try:
        about = read_json(folder / ABOUT)
    except NOT_READABLE:
        return {}
    return about if isinstance(about, dict) else {}
