"""The chain of manifests behind a registered version: every artifact intact, and every version as it was recorded."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ernie_pipeline.registry.lineage import Link, Made
from ernie_pipeline.registry.made_from import MadeFrom, made_from
from ernie_pipeline.registry.provenance import ROOT, Values, code_hash, recorded_fingerprint, recorded_versions
from ernie_pipeline.registry.tracking import CHECKED
from ernie_pipeline.registry.verification.step import Step, differs, passed, unchecked
from ernie_pipeline.registry.verification.version import Version
from ernie_pipeline.store.artifacts import NOT_BUILT, Artifact, ArtifactStore
from ernie_pipeline.store.readable import NOT_READABLE
from ernie_pipeline.utils.errors import PipelineError


@dataclass(frozen=True)
class Here:
    """What this machine has now: the hash of a module's code, the version of a library, that of a source.

    Each None where there is none; `source` raises `PipelineError` where it cannot be looked at.
    """

    module: Callable[[str], str | None]
    library: Callable[[str], str | None]
    source: Callable[[str], str]


def step_name(asset: str) -> str:
    """That of the step on an asset of the chain."""
    return f"chain {asset}"


def check_root(store: ArtifactStore, version: Version, statement: Values | None) -> tuple[Step, Made | None]:
    """The step on the artifact of the registration itself, and how the version was made, as far as that is known."""
    name, fingerprint = step_name(ROOT), version.tags.get("fingerprint", "")
    if not fingerprint:
        return unchecked(name, "the version has no tag with a fingerprint: this package did not register it"), None
    recorded = made_from(version.tags, statement)
    artifact, problem = store.find(ROOT, fingerprint)
    if artifact is None:
        known = {"inputs": recorded.inputs} if recorded.inputs else None
        if problem == NOT_BUILT:
            return unchecked(name, f"the artifact {fingerprint} is not in this store"), known
        return differs(name, f"{fingerprint}: {problem}"), known
    try:
        difference = _difference(version, artifact, recorded, statement)
    except NOT_READABLE as error:
        difference = f"{fingerprint} is no registration that can be read ({type(error).__name__}: {error})"
    if difference:
        return differs(name, difference), artifact.manifest
    return passed(name, f"{fingerprint}, registered {_when(artifact.manifest)}"), artifact.manifest


def _difference(version: Version, artifact: Artifact, recorded: MadeFrom, statement: Values | None) -> str:
    inputs: dict[str, str] = artifact.manifest["inputs"]
    tagged = recorded.tagged or inputs
    if wrong := [name for name in sorted({*inputs, *tagged}) if inputs.get(name) != tagged.get(name)]:
        first = wrong[0]
        return (
            f"the registry's tag says data version {tagged.get(first, 'none')} of {first}, the artifact's manifest "
            f"{inputs.get(first, 'none')}"
        )
    for tag, said in _decided(version, artifact).items():
        if version.tags.get(tag, said) != said:
            return f"the registry's tag {tag} says {version.tags[tag]!r}, the artifact {said!r}"
    if statement is not None:
        stated, fingerprint = recorded_versions(statement), recorded_fingerprint(statement)
        if fingerprint != version.tags["fingerprint"]:
            return f"the provenance in the model is that of fingerprint {fingerprint}"
        if wrong := [name for name in sorted(inputs) if stated.get(name) != inputs[name]]:
            said = stated.get(wrong[0], "none")
            return f"the provenance in the model says data version {said} of {wrong[0]}, the store {inputs[wrong[0]]}"
    return ""


def _decided(version: Version, artifact: Artifact) -> dict[str, str]:
    """The tags that the version got when its gate had decided, by the artifact: of this version, not of a later one
    from the same inputs."""
    said = artifact.json("registration.json")
    if str(said["version"]) != version.version or "promoted" not in said:
        return {}
    return {
        "gate.promoted": str(said["promoted"]).lower(),
        "gate.reasons": " ".join(said["reasons"]),
        CHECKED: f"{said['max_logit_difference']:.6g}",
    }


def check_links(links: list[Link], version: Version, statement: Values | None, here: Here) -> list[Step]:
    """A step for each link of the chain."""
    recorded = recorded_versions(statement) if statement else {}
    twice = {link.name for link in links if [other.name for other in links].count(link.name) > 1}
    fingerprints = made_from(version.tags, statement).fingerprints
    return [_link(link, recorded.get(link.name), link.name in twice, fingerprints, here) for link in links]


def _link(link: Link, recorded: str | None, twice: bool, fingerprints: Mapping[str, str], here: Here) -> Step:
    name, details = step_name(link.name), Values(data_version=link.version, read_by=link.read_by)
    if twice:
        readers = " and ".join(link.read_by)
        return differs(name, f"{readers} read data version {link.version}, and another stage another one", **details)
    if recorded is not None and recorded != link.version:
        return differs(name, f"the provenance in the model says {recorded}, the manifests {link.version}", **details)
    if link.is_source:
        return _source(name, link, here)
    if link.artifact is None:
        if link.altered:
            return differs(name, f"{', '.join(link.read_by)} read {link.version}, but {link.problem}", **details)
        return unchecked(name, link.problem, **details)
    made = link.artifact.manifest
    details |= {key: made[key] for key in ("fingerprint", "built", "libraries", "modules")}
    files = len(made["files"])
    read = fingerprints.get(link.name, made["fingerprint"])
    if read not in link.fingerprints:
        said = f"it was registered with fingerprint {read}, of which nothing with data version {link.version} is known"
        return differs(name, said, **details)
    also = "" if read == made["fingerprint"] else f" (the one that was read, {read}, held the same)"
    said = f"{link.version}, {files} files intact{also}, built {_when(made)} by {_code(made, here)}"
    return passed(name, said, **details)


def _source(name: str, link: Link, here: Here) -> Step:
    details = Values(version=link.version, read_by=link.read_by)
    try:
        now = here.source(link.name)
    except PipelineError as error:
        said = f"{link.version}; what the recipe names cannot be looked at now: {error}"
        return unchecked(name, said, asked=False, **details)
    if now != link.version:
        said = f"{link.version}; the recipe of today names {now}, so it was not looked at"
        return unchecked(name, said, asked=False, **details)
    return passed(name, f"{link.version}, which is what the recipe names today", **details)


def _code(made: Made, here: Here) -> str:
    """The code and libraries of a stage, beside those that are here: another version of them is no fault."""
    modules: dict[str, str] = made["modules"]
    changed = [module for module, shape in modules.items() if here.module(module) != shape]
    code = f"code {code_hash(modules)[:8]}" + (
        f" ({len(changed)} of {len(modules)} modules differ here)" * bool(changed)
    )
    others = {name: here.library(name) for name, its in made["libraries"].items() if here.library(name) != its}
    told = [f"{name} {made['libraries'][name]} ({now or 'none'} here)" for name, now in others.items()]
    same = len(made["libraries"]) - len(others)
    return ", ".join([code, *told, *([f"{same} libraries as here"] if same else [])])


def _when(made: Made) -> str:
    return str(made["built"])[:16].replace("T", " ")
