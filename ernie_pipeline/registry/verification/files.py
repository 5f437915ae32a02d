"""The files of a registered version: as they were listed when it was registered, and as they were signed."""

from pathlib import Path
from typing import Any

from ernie_pipeline.recipe.signing import SIGNING_KEY, VERIFYING_KEY, Signing
from ernie_pipeline.registry.lookup import LATER
from ernie_pipeline.registry.provenance import PROVENANCE, read_provenance, wrong_digest
from ernie_pipeline.registry.signing import SIGNATURE, BadSignatureError, check_signature
from ernie_pipeline.registry.verification.step import Step, differs, passed, unchecked
from ernie_pipeline.store.sealed import Files, damaged_file, list_files
from ernie_pipeline.utils.errors import PipelineError

FILES, SIGNED, STATED = "files", "signature", "provenance"
Statement = dict[str, Any] | None


def check_files(folder: Path, listed: Files | None, signing: Signing) -> tuple[list[Step], Statement]:
    """The steps on the folder of a version, and its statement of provenance, if there is one that can be read.

    `listed`: the files as the store recorded them at registration; None where it has no record.
    """
    files = list_files(folder)
    later = [name for name in files if LATER.fullmatch(name)]
    kept = {name: entry for name, entry in files.items() if name not in later}
    stated, statement = _provenance(folder, kept, listed)
    return [_listed(folder, kept, listed, later), _signature(folder, listed, signing, later), stated], statement


def _listed(folder: Path, files: Files, listed: Files | None, later: list[str]) -> Step:
    if listed is None:
        return unchecked(FILES, "the store has no list of its files from when it was registered", asked=False)
    if damaged := damaged_file(folder, listed, tolerated=LATER):
        altered = "" if damaged.endswith(("missing", "listed")) or " " in damaged else " was altered"
        return differs(FILES, f"{damaged}{altered}", folder=str(folder))
    compiled = [name for name in later if name.endswith(".pyc")]
    beside = f"; {len(compiled)} files that Python compiled since lie beside its code, in no list" if compiled else ""
    said = f"{len(files)} files have the SHA-256 that they were registered with{beside}"
    return passed(FILES, said, folder=str(folder), files=len(files), compiled=compiled)


def _signature(folder: Path, listed: Files | None, signing: Signing, later: list[str]) -> Step:
    if not (folder / SIGNATURE).is_file():
        if listed and SIGNATURE in listed:
            return differs(SIGNED, f"it was signed, and {SIGNATURE} is missing")
        if signing.can_verify:
            return differs(SIGNED, f"it is not signed, and {VERIFYING_KEY} or a Sigstore identity asks for a signature")
        return unchecked(SIGNED, f"it is not signed: {SIGNING_KEY} was not set when it was registered", asked=False)
    if not signing.can_verify:
        said = f"it is signed, and no key to check that with is named: set {VERIFYING_KEY}"
        return unchecked(SIGNED, said, asked=False)
    try:
        return passed(SIGNED, f"every file is as it was signed {check_signature(folder, signing, later)}")
    except BadSignatureError as error:
        return differs(SIGNED, f"the signature does not hold: {error}")
    except PipelineError as error:
        return unchecked(SIGNED, str(error))


def _provenance(folder: Path, files: Files, listed: Files | None) -> tuple[Step, Statement]:
    try:
        statement = read_provenance(folder)
    except ValueError as error:
        return differs(STATED, str(error)), None
    if statement is None:
        if listed and PROVENANCE in listed:
            return differs(STATED, f"{PROVENANCE} is missing"), None
        said = "it has none: it was registered by a version of this package from before"
        return unchecked(STATED, said, asked=False), None
    if wrong := wrong_digest(folder, files, statement):
        return differs(STATED, f"{wrong} is not the file that the statement is about"), statement
    about = len(statement["subject"])
    dependencies = len(statement["predicate"]["buildDefinition"]["resolvedDependencies"])
    return passed(STATED, f"an in-toto statement about {about} files, made from {dependencies} things"), statement
