"""Content-addressed artifacts: sealed folders, verified before they are used again."""

import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ernie_pipeline.store.aside import clear_way, is_folder, make_folder
from ernie_pipeline.store.manifest import is_manifest
from ernie_pipeline.store.sealed import (
    Files,
    damaged_file,
    read_sealed,
    remove_folder,
    remove_temporary,
    sealed_files,
    temporary_folders,
    temporary_place,
    write_sealed_folder,
)

MANIFEST = "manifest.json"
NOT_BUILT = "not built yet"
UNFINISHED = ".unfinished"
REPORTS = "reports"
"""Files below this folder are for people: they are verified, but do not count in the data version."""
COST = "cost"
"""The manifest's key, where there is something to say, for what the artifact cost: see staleness/cost.py."""

FINGERPRINT = re.compile("[0-9a-f]+")


def asset_of(read: str) -> str:
    """The asset of which what a manifest calls `read` is an artifact: qlora_adapter of "qlora_adapter (round 1)"."""
    return read.partition(" ")[0]


@dataclass(frozen=True)
class Check:
    """What was found out about an artifact when it was built. If a blocking one failed, no stage below may use it."""

    name: str
    passed: bool
    description: str
    blocking: bool = True


@dataclass(frozen=True)
class Artifact:
    """What a stage wrote. `reused` says whether this run found it or built it; `note` why it was built."""

    folder: Path
    manifest: dict[str, Any]
    reused: bool = True
    note: str = ""

    @property
    def data_version(self) -> str:
        """The hash of the files that the stages below read."""
        return str(self.manifest["data_version"])

    @property
    def checks(self) -> list[Check]:
        """The results of its checks, blocking or not."""
        return [Check(**values) for values in self.manifest["checks"]]

    @property
    def failed_check(self) -> str:
        """What a failed blocking check found, or ""."""
        failed = [check for check in self.checks if check.blocking and not check.passed]
        return f"check {failed[0].name} failed: {failed[0].description}" if failed else ""

    def json(self, name: str) -> Any:
        """The parsed JSON file `name` of the artifact."""
        return json.loads((self.folder / name).read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Provenance:
    """What an artifact is built from, for its manifest: all that its fingerprint covers.

    `declared_version` stands for everything but the inputs. `modules` has a hash of each module of the stage's code.
    """

    stage: str
    fingerprint: str
    declared_version: str
    inputs: dict[str, str]
    recipe: dict[str, Any]
    modules: dict[str, str] = field(default_factory=dict)
    libraries: dict[str, str] = field(default_factory=dict)


class ArtifactStore:
    """The folder `<root>/<stage>/<fingerprint>/` for each artifact.

    And `<root>/.unfinished/<stage>/<fingerprint>/` for what a build of it wants to find again if it is cut short.
    """

    def __init__(self, root: Path):
        self.root = root

    def folder(self, stage: str, fingerprint: str) -> Path:
        """Where the artifact is, or will be."""
        return self.root / stage / fingerprint

    def find(self, stage: str, fingerprint: str) -> tuple[Artifact | None, str]:
        """The intact artifact, or None and the reason: "not built yet", or what is wrong with what is there."""
        folder = self.folder(stage, fingerprint)
        manifest, problem = self.manifest(stage, fingerprint)
        if not problem and (damaged := damaged_file(folder, manifest["files"], besides=[MANIFEST])):
            problem = f"artifact altered: {damaged}"
        return (None, problem) if problem else (Artifact(folder, manifest), "")

    def manifest(self, stage: str, fingerprint: str) -> tuple[dict[str, Any], str]:
        """The intact manifest, or {} and the reason, as of `find`; the artifact's other files are not looked at."""
        folder = self.folder(stage, fingerprint)
        if not is_folder(folder):
            return {}, "artifact altered: it is no folder" if os.path.lexists(folder) else NOT_BUILT
        manifest, problem = read_sealed(folder / MANIFEST)
        if not problem and not (is_manifest(manifest) and sealed_files(manifest) is not None):
            problem = f"{MANIFEST} is not readable"
        if not problem and manifest["fingerprint"] != fingerprint:
            problem = MANIFEST
        return ({}, f"artifact altered: {problem}") if problem else (manifest, "")

    def stages(self) -> list[str]:
        """The stages of which there is an artifact, or was one."""
        return sorted(p.name for p in self.root.glob("[!.]*") if is_folder(p))

    def fingerprints(self, stage: str) -> list[str]:
        """Those of the stage's artifacts, intact or not."""
        return sorted(p.name for p in (self.root / stage).glob("*") if FINGERPRINT.fullmatch(p.name))

    def temporary(self, stage: str) -> dict[str, list[Path]]:
        """What killed builders left half-written, and living ones are writing, by fingerprint."""
        found = temporary_folders(self.root / stage)
        return {name: paths for name, paths in found.items() if FINGERPRINT.fullmatch(name)}

    def unfinished(self, stage: str, fingerprint: str) -> Path:
        """Where a build of the artifact keeps what a later one may go on from; for its sole builder only."""
        return self.root / UNFINISHED / stage / fingerprint

    def all_unfinished(self) -> list[tuple[str, str]]:
        """The stage and the fingerprint of each build that was cut short or is under way and has kept something."""
        found = sorted((self.root / UNFINISHED).glob("*/*"))
        return [(path.parent.name, path.name) for path in found if FINGERPRINT.fullmatch(path.name)]

    def forget_unfinished(self, stage: str, fingerprint: str) -> None:
        """Remove what a build had kept: out of its place in one step, then from the disk. For its sole builder only."""
        kept = self.unfinished(stage, fingerprint)
        if os.path.lexists(kept):
            make_folder(self.root / stage, below=self.root)
            # into the stage's folder, where `temporary` finds what a kill leaves of it
            kept.rename(temporary_place(self.folder(stage, fingerprint)))
            self.remove_temporary(stage, fingerprint)

    def build(
        self,
        made_from: Provenance,
        write: Callable[[Path], Iterable[Check] | None],
        note: str = "",
        cost: Callable[[Path], dict[str, Any]] = lambda folder: {},
    ) -> Artifact:
        """Let `write` write the artifact's files; they and the manifest are in its place in one step, or not at all.

        `cost` then tells, from its folder, what the manifest is to say of what it cost, {} for nothing.

        Only for the fingerprint's sole builder (see `lock.py`). A folder that stood there, altered, is replaced. What
        stands in the place of the stage's folder, or of an unfinished build's, and is none is set aside. Raises
        `PipelineError` when the disk is full.
        """
        clear_way(self.unfinished(made_from.stage, made_from.fingerprint), below=self.root)
        checks: list[Check] = []
        spent: dict[str, Any] = {}
        start = end = time.monotonic()

        def fill(folder: Path) -> None:
            nonlocal end
            checks.extend(write(folder) or ())
            end = time.monotonic()
            spent.update(cost(folder))

        def values(files: Files) -> dict[str, Any]:
            return {**_manifest(made_from, files, checks, end - start), **({COST: spent} if spent else {})}

        final = self.folder(made_from.stage, made_from.fingerprint)
        manifest = write_sealed_folder(final, MANIFEST, fill, values, what=made_from.stage)
        return Artifact(final, manifest, reused=False, note=note)

    def remove(self, stage: str, fingerprint: str) -> None:
        """Remove an artifact: out of its place in one step, then from the disk. For its sole builder only."""
        remove_folder(self.folder(stage, fingerprint))

    def remove_temporary(self, stage: str, fingerprint: str) -> None:
        """Remove what killed builders of this artifact left. For its sole builder only."""
        remove_temporary(self.folder(stage, fingerprint))


def _manifest(made_from: Provenance, files: Files, checks: Iterable[Check], seconds: float) -> dict[str, Any]:
    return {
        **asdict(made_from),
        "data_version": _data_version(files),
        "checks": [asdict(check) for check in checks],
        "seconds": round(seconds, 3),
        "built": datetime.now(UTC).isoformat(timespec="milliseconds"),
    }


def _data_version(files: Files) -> str:
    read_below = {name: entry["sha256"] for name, entry in files.items() if not name.startswith(f"{REPORTS}/")}
    return hashlib.sha256(json.dumps(read_below, sort_keys=True).encode()).hexdigest()[:16]
