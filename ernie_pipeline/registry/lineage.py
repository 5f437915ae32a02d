"""The chain of manifests, walked back: what a model was made from, and that from what, to commits and file hashes."""

from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from ernie_pipeline.store.artifacts import NOT_BUILT, Artifact, ArtifactStore, asset_of
from ernie_pipeline.store.history import builds

Made = Mapping[str, Any]
"""A manifest or, of an artifact that is gone, its line in the history: its recipe, inputs, code and libraries."""


@dataclass(frozen=True)
class Link:
    """An input as those that read it recorded it: its name there, its data version, and who they are.

    `made`: how it was made, None for a source, which no stage made, and for an artifact that nothing is known of.
    `artifact`: the intact artifact with that data version, or `problem`: what is wrong with what there is; `altered`
    tells one that is damaged, or holds something else, from one that is not here. `fingerprints`: of every artifact
    that is known to have had that data version.
    """

    name: str
    version: str
    read_by: list[str] = field(compare=False)
    made: Made | None = None
    artifact: Artifact | None = None
    problem: str = ""
    altered: bool = False
    fingerprints: Collection[str] = field(default=(), compare=False)

    @property
    def is_source(self) -> bool:
        """Whether the walk ends here: an observed version, or an artifact of which nothing is known."""
        return self.made is None and not self.problem


def walk_back(
    store: ArtifactStore,
    inputs: Mapping[str, str],
    reader: str,
    built: Collection[str],
    read: Mapping[str, str] | None = None,
) -> list[Link]:
    """Every input of what `reader` recorded in `inputs` (names and data versions), and theirs, nearest first.

    `built`: the names of the assets that are artifacts; `read`: the fingerprints of those that were read, by name, as
    far as they are known. Where other inputs made the same afterwards, the walk goes on from those that were read. Each
    artifact's files are hashed once.
    """
    read = read or {}
    found: dict[tuple[str, str], Link] = {}
    waiting = deque((name, version, reader) for name, version in inputs.items())
    while waiting:
        name, version, read_by = waiting.popleft()
        if (name, version) in found:
            found[name, version].read_by.append(read_by)
            continue
        is_built = asset_of(name) in built
        link = _find(store, name, version, read_by, read.get(name)) if is_built else Link(name, version, [read_by])
        found[name, version] = link
        waiting.extend((above, its, name) for above, its in (link.made or {}).get("inputs", {}).items())
    return list(found.values())


def _find(store: ArtifactStore, name: str, version: str, read_by: str, read: str | None) -> Link:
    """The artifact with that data version: of several, made from other inputs with the same outcome, the one with the
    fingerprint `read`, else any intact one."""
    stage = asset_of(name)
    known = {build["fingerprint"]: build for build in builds(store, stage) if build["data_version"] == version}
    problems: dict[str, str] = {}
    newest_first = [*reversed(known.items())]
    for fingerprint, build in sorted(newest_first, key=lambda each: each[0] != read):
        artifact, problem = store.find(stage, fingerprint)
        if artifact and artifact.data_version == version:
            how = known.get(read or "", artifact.manifest)
            return Link(name, version, [read_by], how, artifact, fingerprints=[*known])
        told = f"it holds data version {artifact.data_version} now" if artifact else problem
        problems[fingerprint] = told
        made = known.get(read or "", build)
    if not known:
        problem = f"nothing with data version {version} was ever built in this store"
        return Link(name, version, [read_by], problem=problem)
    fingerprint, problem = next(
        ((fingerprint, problem) for fingerprint, problem in problems.items() if problem != NOT_BUILT),
        (next(iter(problems)), "it is not in this store any more"),
    )
    altered = any(problem != NOT_BUILT for problem in problems.values())
    return Link(
        name,
        version,
        [read_by],
        made,
        problem=f"{stage} {fingerprint}: {problem}",
        altered=altered,
        fingerprints=[*known],
    )
