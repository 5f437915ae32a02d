"""The base models that the store keeps in 4 bits: which there are, what for, and removing what nothing asks for."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import Timeout

from ernie_pipeline.store.artifacts import FINGERPRINT
from ernie_pipeline.store.housekeeping.disk_usage import size_of
from ernie_pipeline.store.lock import is_held, open_lock
from ernie_pipeline.store.quantized_base import FOLDER, MadeOf, damage, key_of, read_made_of
from ernie_pipeline.store.sealed import remove_folder, remove_temporary, temporary_folders
from ernie_pipeline.utils.errors import PipelineError

ASKED_FOR = "asked for by the recipe"
PERHAPS = f"perhaps {ASKED_FOR}"
QUANTIZED_BASE = "quantized base model"
"""What it is called where an artifact has its asset's name."""

Asked = Callable[[], MadeOf | None]
"""What the quantized base that the recipe asks for is made of, None if it asks for none.

Raises `PipelineError` when that cannot be found out.
"""


@dataclass(frozen=True)
class QuantizedBase:
    """A quantized base, intact or not. `size` in bytes; `needed_for` is why prune keeps it, empty if it may go.

    `version` (of the base model) and `quantization` are None for one whose manifest is altered.
    """

    key: str
    size: int
    version: str | None = None
    quantization: dict[str, Any] | None = None
    needed_for: tuple[str, ...] = ()


@dataclass(frozen=True)
class Interrupted:
    """What killed quantizations of one base left, or a living one is writing; `size` in bytes."""

    key: str
    size: int


@dataclass(frozen=True)
class Bases:
    """Quantized bases; `notes` are sentences about what could not be found out, or was left alone and why."""

    quantized: tuple[QuantizedBase, ...] = ()
    interrupted: tuple[Interrupted, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Of all of them, in bytes."""
        return sum(base.size for base in self.quantized) + sum(left.size for left in self.interrupted)


NO_BASES = Bases()


def take_stock(root: Path, asked: Asked) -> Bases:
    """Every quantized base of the store below `root`, and what it is needed for.

    Where what the recipe asks for cannot be found out, each counts as needed, and a note says so.
    """
    keys = _keys(root)
    wanted, doubt = None, ""
    try:
        wanted = asked() if keys else None
    except PipelineError as error:
        doubt = f"{error}; so every {QUANTIZED_BASE} is kept"
    found = [_found(root, key, wanted, doubt) for key in keys]
    left = [Interrupted(key, sum(map(size_of, paths))) for key, paths in _interrupted(root).items()]
    return Bases(tuple(found), tuple(left), (doubt,) if doubt else ())


def anything(root: Path) -> bool:
    """Whether there is one, intact or not."""
    return bool(_keys(root))


def verify(root: Path) -> dict[str, str]:
    """What is wrong with each damaged quantized base, by its key; every file of each is read, several at a time."""
    found = {key: damage(root / FOLDER / key) for key in _keys(root)}
    return {key: f"altered: {problem}" for key, problem in found.items() if problem}


def prune(root: Path, bases: Bases, delete: bool = False) -> Bases:
    """Remove what nothing needs and what killed quantizations left; unless `delete`, only say which.

    Gives what was, or would be, removed. What another process is quantizing or verifying is left alone, with a note.
    """
    going = {base.key: base for base in bases.quantized if not base.needed_for}
    left = {found.key: found for found in bases.interrupted}
    notes, gone = list(bases.notes), list[str]()
    for key in dict.fromkeys([*going, *left]):
        with _unless_held(root / FOLDER / f"{key}.lock", make=delete) as held:
            problem = "another process has its lock" if held else _remove(root, key, key in going) if delete else ""
        if problem:
            notes.append(f"{QUANTIZED_BASE} {key} is left alone: {problem}")
        else:
            gone.append(key)
    return Bases(
        tuple(going[key] for key in gone if key in going),
        tuple(left[key] for key in gone if key in left),
        tuple(notes),
    )


def _found(root: Path, key: str, wanted: MadeOf | None, doubt: str) -> QuantizedBase:
    place = root / FOLDER / key
    made = read_made_of(place)
    why = (PERHAPS,) if doubt else (ASKED_FOR,) if _is(wanted, key, made) else ()
    return QuantizedBase(key, size_of(place), made.get("version"), made.get("quantization"), why)


def _is(wanted: MadeOf | None, key: str, made: MadeOf) -> bool:
    """Whether it is the wanted one; a library that is not installed here may have any version where it was made."""
    if wanted is None:
        return False
    there = made.get("libraries", {})
    libraries = {name: here or there.get(name, "") for name, here in wanted["libraries"].items()}
    return key == key_of(wanted | {"libraries": libraries})


def _keys(root: Path) -> list[str]:
    return sorted(path.name for path in (root / FOLDER).glob("*") if FINGERPRINT.fullmatch(path.name))


def _interrupted(root: Path) -> dict[str, list[Path]]:
    found = temporary_folders(root / FOLDER)
    return {name: paths for name, paths in found.items() if FINGERPRINT.fullmatch(name)}


@contextmanager
def _unless_held(lock: Path, make: bool) -> Iterator[bool]:
    """Hold the lock if that needs no waiting, else yield True. Unless `make`, only look: nothing is written.

    The file stays: to unlink a lock that others wait for would split them.
    """
    if not make:
        yield is_held(lock)
        return
    held = open_lock(lock, below=lock.parent.parent)
    try:
        held.acquire(blocking=False)
    except Timeout:
        yield True
        return
    try:
        yield False
    finally:
        held.release()


def _remove(root: Path, key: str, whole: bool) -> str:
    """Remove what killed quantizations left and, if `whole`, the quantized base; "" or why not."""
    place = root / FOLDER / key
    try:
        if whole:
            remove_folder(place)
    except OSError as error:
        return f"it cannot be removed ({error.strerror})"
    remove_temporary(place)
    return "some of it cannot be removed" if key in _interrupted(root) else ""
