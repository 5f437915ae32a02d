"""Looking after the store: what is in it and what for, whether it is intact, and removing what nothing needs."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ernie_pipeline.store.artifacts import NOT_BUILT, ArtifactStore, asset_of
from ernie_pipeline.store.history import Build, recorded, remember
from ernie_pipeline.store.housekeeping import kept_rows
from ernie_pipeline.store.housekeeping import quantized_bases as bases
from ernie_pipeline.store.housekeeping.disk_usage import last_change, size_of
from ernie_pipeline.store.housekeeping.kept_rows import KEPT_DAYS, KeptSet
from ernie_pipeline.store.housekeeping.quantized_bases import (
    ASKED_FOR,
    NO_BASES,
    PERHAPS,
    QUANTIZED_BASE,
    Bases,
)
from ernie_pipeline.store.lock import holder, unless_held
from ernie_pipeline.utils.errors import PipelineError

Key = tuple[str, str]
"""An asset and a fingerprint."""

Held = Callable[[Path], str]
"""What outside the store still needs the artifact in a folder, in a clause; "" for nothing.

Raises `PipelineError` when that cannot be found out.
"""


@dataclass(frozen=True)
class Entry:
    """An artifact, intact or not. `size` in bytes; `needed_for` is why prune keeps it, empty if it may go.

    The rest is None for one whose manifest is altered and whose history is lost.
    """

    asset: str
    fingerprint: str
    size: int
    data_version: str | None = None
    built: str | None = None
    seconds: float | None = None
    needed_for: tuple[str, ...] = ()


@dataclass(frozen=True)
class HalfWritten:
    """What killed builders of one artifact left, or a living one is writing; `size` in bytes."""

    asset: str
    fingerprint: str
    size: int


@dataclass(frozen=True)
class Contents:
    """All that is in the store; `notes` are sentences about what could not be found out.

    `unfinished`: what builds that were cut short, or are under way, keep to go on from.
    """

    artifacts: tuple[Entry, ...]
    half_written: tuple[HalfWritten, ...]
    notes: tuple[str, ...] = ()
    unfinished: tuple[Entry, ...] = ()
    bases: Bases = NO_BASES
    rows: tuple[KeptSet, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The same as values, with the sum of the artifacts' sizes."""
        return {**asdict(self), "size": _sum(self.artifacts)}


@dataclass(frozen=True)
class Damage:
    """A damaged artifact, and what is wrong with it. Of a quantized base model, `fingerprint` is its key."""

    asset: str
    fingerprint: str
    reason: str


@dataclass(frozen=True)
class Pruned:
    """What was removed or, unless `deleted`, would be; `size` in bytes. `notes`: what was left alone, and why."""

    deleted: bool
    artifacts: tuple[Entry, ...]
    half_written: tuple[HalfWritten, ...]
    size: int
    notes: tuple[str, ...]
    unfinished: tuple[Entry, ...] = ()
    bases: Bases = NO_BASES
    rows: tuple[KeptSet, ...] = ()


def take_stock(
    store: ArtifactStore,
    asked_for: Mapping[str, str],
    held: Mapping[str, Held],
    quantized: Bases = NO_BASES,
    unknown: str = "",
    rows: tuple[KeptSet, ...] = (),
) -> Contents:
    """What is in the store, and what each artifact is needed for; `quantized` and `rows` are what `bases.take_stock`
    and `kept_rows.take_stock` found.

    `asked_for`: the fingerprint that the recipe asks for, of each asset in the order of the chain. `held`, by asset:
    see `Held`; where that cannot be found out, every artifact of the asset counts as needed, and a note says so.
    `unknown`: why it cannot be found out what the recipe asks for, "" where it can; then that goes for all of them.
    """
    assets = [*asked_for, *(name for name in store.stages() if name not in asked_for)]
    known = {(asset, f): _known(store, asset, f) for asset in assets for f in store.fingerprints(asset)}
    needed, notes = _directly_needed(store, known, asked_for, held, unknown)
    _add_what_they_were_built_from(needed, known)
    entries = [_entry(store, key, known[key], tuple(needed.get(key, ()))) for key in known]
    half_written = [
        HalfWritten(asset, fingerprint, sum(map(size_of, paths)))
        for asset in assets
        for fingerprint, paths in store.temporary(asset).items()
    ]
    unfinished = [
        Entry(*key, size_of(store.unfinished(*key)), needed_for=_why_unfinished_is_kept(store, key, asked_for, unknown))
        for key in store.all_unfinished()
    ]
    notes += kept_rows.notes(rows)
    return Contents(tuple(entries), tuple(half_written), tuple(notes), tuple(unfinished), quantized, rows)


def anything(store: ArtifactStore) -> bool:
    """Whether there is an artifact or a quantized base model in the store, intact or not."""
    return any(map(store.fingerprints, store.stages())) or bases.anything(store.root)


def verify(store: ArtifactStore) -> list[Damage]:
    """Every damaged artifact and quantized base model; each file of each is read."""
    found = ((asset, f, store.find(asset, f)[1]) for asset in store.stages() for f in store.fingerprints(asset))
    damaged = [Damage(*damage) for damage in found if damage[2] not in ("", NOT_BUILT)]
    return damaged + [Damage(QUANTIZED_BASE, *damage) for damage in bases.verify(store.root).items()]


def prune(store: ArtifactStore, contents: Contents, delete: bool = False) -> Pruned:
    """Remove what nothing needs and what killed builders left half-written; unless `delete`, only say which.

    What another process holds the lock of is left alone, and so is what was built again since `contents` was taken.
    """
    going: dict[Key, Entry] = {(e.asset, e.fingerprint): e for e in contents.artifacts if not e.needed_for}
    half_written: dict[Key, HalfWritten] = {(a.asset, a.fingerprint): a for a in contents.half_written}
    unfinished: dict[Key, Entry] = {(u.asset, u.fingerprint): u for u in contents.unfinished if not u.needed_for}
    notes, gone = list(contents.notes), list[Key]()
    for key in dict.fromkeys([*going, *half_written, *unfinished]):
        problem = _remove(store, key, going.get(key), key in unfinished) if delete else _taken(holder(store.root, *key))
        if problem:
            notes.append(f"{' '.join(key)} is left alone: {problem}")
        else:
            gone.append(key)
    artifacts = tuple(going[key] for key in gone if key in going)
    left = tuple(half_written[key] for key in gone if key in half_written)
    cut_short = tuple(unfinished[key] for key in gone if key in unfinished)
    quantized = bases.prune(store.root, contents.bases, delete)
    rows = kept_rows.prune(store.root, contents.rows, delete)
    size = _sum(artifacts) + _sum(left) + _sum(cut_short) + quantized.size + _sum(rows)
    return Pruned(delete, artifacts, left, size, tuple(notes), cut_short, quantized, rows)


def _why_unfinished_is_kept(
    store: ArtifactStore, key: Key, asked_for: Mapping[str, str], unknown: str
) -> tuple[str, ...]:
    """Where the artifact stands, there is nothing to go on with; where it does not, another recipe may ask for it."""
    if not store.manifest(*key)[1]:
        return ()
    young = time.time() - last_change(store.unfinished(*key)) < KEPT_DAYS * 24 * 3600
    asked = key in asked_for.items()
    reasons = {ASKED_FOR: asked, PERHAPS: bool(unknown), f"changed in the last {KEPT_DAYS} days": young}
    return tuple(reason for reason, holds in reasons.items() if holds)


def _directly_needed(
    store: ArtifactStore,
    known: Mapping[Key, Build],
    asked_for: Mapping[str, str],
    held: Mapping[str, Held],
    unknown: str,
) -> tuple[dict[Key, list[str]], list[str]]:
    """What is needed whatever else is, with the reasons, and notes on what could not be found out."""
    needed: dict[Key, list[str]] = {key: [PERHAPS] if unknown else [] for key in known}
    notes = [f"{unknown}; so every artifact is kept"] if unknown else []
    for key in asked_for.items():
        if key in needed:
            needed[key].append(ASKED_FOR)
    newest: dict[str, Key] = {}
    usable = [key for key in known if store.manifest(*key)[0]]  # the others are known from the history at most
    for key in sorted(usable, key=lambda key: str(known[key]["built"])):
        newest[key[0]] = key
    for key in newest.values():
        needed[key].append("newest build")
    for asset, ask in held.items():
        keys = [key for key in known if key[0] == asset]
        try:
            clauses = {key: ask(store.folder(*key)) for key in keys}
        except PipelineError as error:
            notes.append(f"{error}; so every artifact of {asset} is kept, with all that it was built from")
            clauses = dict.fromkeys(keys, "perhaps registered")
        for key, clause in clauses.items():
            needed[key] += [clause] if clause else []
    return {key: reasons for key, reasons in needed.items() if reasons}, notes


def _add_what_they_were_built_from(needed: dict[Key, list[str]], known: Mapping[Key, Build]) -> None:
    """Add to `needed` everything above what is in it, by the data versions of the inputs."""
    holding: dict[tuple[str, str], list[Key]] = {}
    for key, build in known.items():
        if build:
            holding.setdefault((key[0], build["data_version"]), []).append(key)
    waiting = deque(needed)
    while waiting:
        reader = waiting.popleft()
        for read, version in known[reader].get("inputs", {}).items():
            for key in holding.get((asset_of(read), version), ()):
                if key not in needed:
                    needed[key] = [f"read by {' '.join(reader)}"]
                    waiting.append(key)


def _remove(store: ArtifactStore, key: Key, entry: Entry | None, unfinished: bool) -> str:
    """Remove the artifact, or if `entry` is None what was left half-written of it; "" or why it was not done.

    `unfinished`: and what an unfinished build of it has kept.
    """
    with unless_held(store.root, *key) as held_by:
        if held_by:
            return _taken(held_by)
        build = _known(store, *key)
        if entry and build.get("built") != entry.built:
            return "it was built again just now"
        if entry and build and build["built"] not in [b["built"] for b in recorded(store, key[0])]:
            remember(store, build)  # so that the plan can still tell what changed since
        try:
            if unfinished:
                store.forget_unfinished(*key)
            if entry:
                store.remove(*key)
        except OSError as error:
            return f"it cannot be removed ({error.strerror})"
        store.remove_temporary(*key)
        return "some of it cannot be removed" if key[1] in store.temporary(key[0]) else ""


def _taken(held_by: str) -> str:
    return f"it is being built by {held_by}" if held_by else ""


def _known(store: ArtifactStore, asset: str, fingerprint: str) -> Build:
    """The artifact's manifest or, where that is altered, its last build in the history; {} if there is neither."""
    manifest, _ = store.manifest(asset, fingerprint)
    return manifest or next((b for b in reversed(recorded(store, asset)) if b["fingerprint"] == fingerprint), {})


def _entry(store: ArtifactStore, key: Key, build: Build, needed_for: tuple[str, ...]) -> Entry:
    entry = Entry(*key, size=size_of(store.folder(*key)), needed_for=needed_for)
    return replace(entry, **{name: build[name] for name in ("data_version", "built", "seconds") if build})


def _sum(entries: Iterable[Entry | HalfWritten | KeptSet]) -> int:
    return sum(entry.size for entry in entries)
