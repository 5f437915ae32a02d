"""Where a registered model comes from, as an in-toto statement with SLSA's provenance, in the model's own folder.

https://in-toto.io/Statement/v1 and https://slsa.dev/spec/v1.0/provenance. `subject`: every other file of the folder.
`resolvedDependencies`: every link of the chain of manifests, back to hub commits and file hashes, and the libraries.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ernie_pipeline.registry.lineage import Link
from ernie_pipeline.registry.signing import SIGNATURE
from ernie_pipeline.store.readable import NOT_READABLE, read_json
from ernie_pipeline.store.sealed import Files, list_files

PROVENANCE = "provenance.json"
STATEMENT, PREDICATE = "https://in-toto.io/Statement/v1", "https://slsa.dev/provenance/v1"
ROOT = "registered_model"
"""The stage that makes a registered model."""
BUILD_TYPE, BUILDER = f"urn:ernie_pipeline:{ROOT}:v1", "urn:ernie_pipeline"
DATA_VERSION = "dataVersion"
DIGESTS = {"commit": "gitCommit", "sha256": "sha256"}
"""in-toto's names of digests, by the kind of a source's version."""

Values = dict[str, Any]


def predicate(links: Sequence[Link], recipe: Mapping[str, Any], fingerprint: str, run_id: str) -> Values:
    """SLSA's provenance of a model: `links`, the chain of manifests; `recipe`, the keys with which the model's own
    stage was built; and its fingerprint."""
    made = [link.made for link in links if link.made]
    libraries = {name: its for each in made for name, its in each["libraries"].items()}
    keys = {name: value for each in made for name, value in each["recipe"].items()} | {**recipe}
    return {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": {"recipe": keys},
            "internalParameters": {"fingerprint": fingerprint},
            "resolvedDependencies": [
                *(_dependency(link) for link in links),
                *({"name": name, "uri": f"pkg:pypi/{name}@{its}"} for name, its in sorted(libraries.items())),
            ],
        },
        "runDetails": {
            "builder": {"id": BUILDER, "version": {"ernie_pipeline": _own_version()}},
            "metadata": {"invocationId": run_id},
        },
    }


def write_provenance(folder: Path, predicate: Mapping[str, Any]) -> None:
    """Write the statement about all files that are in the folder."""
    files = list_files(folder)
    subject = [{"name": name, "digest": {"sha256": entry["sha256"]}} for name, entry in files.items()]
    statement = {"_type": STATEMENT, "subject": subject, "predicateType": PREDICATE, "predicate": predicate}
    (folder / PROVENANCE).write_text(json.dumps(statement, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def read_provenance(folder: Path) -> Values | None:
    """The statement in a model's folder, None where there is none. Raises `ValueError` for one that is none of ours."""
    file = folder / PROVENANCE
    if not file.exists():
        return None
    try:
        statement: Values = read_json(file)
        kinds = (statement["_type"], statement["predicateType"], statement["predicate"]["buildDefinition"]["buildType"])
        for read in (recorded_digests, recorded_versions, recorded_inputs, recorded_fingerprints, recorded_fingerprint):
            read(statement)
    except NOT_READABLE as error:
        raise ValueError(f"{PROVENANCE} is not readable") from error
    if kinds != (STATEMENT, PREDICATE, BUILD_TYPE):
        raise ValueError(f"{PROVENANCE} is no statement of provenance of this package")
    return statement


def recorded_digests(statement: Values) -> dict[str, str]:
    """The SHA-256 of each file that it is about."""
    return {entry["name"]: str(entry["digest"]["sha256"]) for entry in statement["subject"]}


def recorded_versions(statement: Values) -> dict[str, str]:
    """The data version of each link of the chain, by its name."""
    return {name: str(about[DATA_VERSION]) for name, about in _links(statement)}


def recorded_inputs(statement: Values) -> dict[str, str]:
    """The data version of what the registered model's own stage read."""
    return {name: str(about[DATA_VERSION]) for name, about in _links(statement) if ROOT in about["readBy"]}


def recorded_fingerprints(statement: Values) -> dict[str, str]:
    """The fingerprint of each artifact of the chain, by its name."""
    return {name: str(about["fingerprint"]) for name, about in _links(statement) if "fingerprint" in about}


def recorded_fingerprint(statement: Values) -> str:
    """That of the registered model's own stage."""
    return str(statement["predicate"]["buildDefinition"]["internalParameters"]["fingerprint"])


def wrong_digest(folder: Path, files: Files, statement: Values) -> str:
    """The first file whose digest is not as the statement has it, or that it does not name; "" if none."""
    found = {name: entry["sha256"] for name, entry in files.items() if name not in (PROVENANCE, SIGNATURE)}
    recorded = recorded_digests(statement)
    return next((name for name in sorted({*found, *recorded}) if found.get(name) != recorded.get(name)), "")


def code_hash(modules: Mapping[str, str]) -> str:
    """16 hex digits that stand for the code of a stage: a manifest's hashes of its modules."""
    return hashlib.sha256(json.dumps({**modules}, sort_keys=True).encode()).hexdigest()[:16]


def _dependency(link: Link) -> Values:
    kind, _, digits = link.version.partition(":")
    digest = {DIGESTS[kind]: digits} if kind in DIGESTS else {DATA_VERSION: link.version}
    about: Values = {DATA_VERSION: link.version, "readBy": sorted(link.read_by)}
    if link.made:
        about |= {key: link.made[key] for key in ("fingerprint", "libraries", "built")}
        about["code"] = code_hash(link.made["modules"])
    return {"name": link.name, "digest": digest, "annotations": about}


def _links(statement: Values) -> list[tuple[str, Values]]:
    """Name and annotations of each link of the chain: libraries have none."""
    dependencies = statement["predicate"]["buildDefinition"]["resolvedDependencies"]
    return [(each["name"], each["annotations"]) for each in dependencies if "annotations" in each]


def _own_version() -> str:
    try:
        return version("ernie_pipeline")
    except PackageNotFoundError:  # run from a checkout
        return "unknown"
