"""What a stage speaks of outside the store, in a file of rows, in MLflow's registry or on the hub: whether it is there.

Asked on each run and by each plan, so it imports nothing that it may do without.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ernie_pipeline.recipe.sections import Publish, Source
from ernie_pipeline.recipe.settings import Settings
from ernie_pipeline.staleness.published import PUBLISHED
from ernie_pipeline.store.artifacts import Artifact, ArtifactStore
from ernie_pipeline.store.hashing.hash_cache import remembered_sha256
from ernie_pipeline.store.readable import NOT_READABLE, read_json
from ernie_pipeline.utils.errors import PipelineError

HashOf = Callable[[Path], str]

Lost = Callable[[Artifact], str]
"""What of an artifact's effect elsewhere is gone, in a clause, such as a registered model; "" while nothing is."""

Told = Callable[[], str]
"""What is to be known of a stage's effect elsewhere though nothing is to be built for it, in a sentence; "" for
nothing."""

Refused = Callable[[bool], str]
"""Why a stage could not do its work now, in a sentence, as far as that can be told before; "" where nothing is known.
Asked with whether it is certain that it is to work."""


def lost_registration(settings: Settings, artifact: Artifact, hash_of: HashOf = remembered_sha256) -> str:
    """What of an artifact of registered_model is gone from the registry, in a clause; "" while nothing is.

    Raises `PipelineError` when the registry does not answer.
    """
    from ernie_pipeline.registry.lookup import Registered, what_is_lost

    return what_is_lost(settings.tracking_uri, Registered.read(artifact.json("registration.json")), hash_of)


def rows_refused(source: Source, version: Callable[[], str], certain: bool) -> str:
    """Why no row of a file could be read, in a sentence; "" where one can be. `version`: of the source."""
    from ernie_pipeline.data.read.reading import Reading  # it imports Arrow and Polars

    try:
        any(chunk.rows.height for chunk in Reading(source, version()).chunks())
    except PipelineError as error:
        return str(error)
    return ""


def registration_refused(certain: bool) -> str:
    """Why what is registered could not be signed, in a sentence; "" where it can be, or is not to be."""
    from ernie_pipeline.recipe.signing import Signing
    from ernie_pipeline.registry.signing import check_signer

    try:
        check_signer(Signing.from_environment())
    except PipelineError as error:
        return str(error)
    return ""


def registered_as(settings: Settings, folder: Path) -> str:
    """ "registered as NAME VERSION" while the registry has what an artifact of registered_model speaks of, else "".

    Raises `PipelineError` when the registry does not answer.
    """
    from ernie_pipeline.registry.lookup import is_registered

    try:
        registration = read_json(folder / "registration.json")
        name, version = str(registration["name"]), str(registration["version"])
    except NOT_READABLE:
        return ""  # a damaged artifact, which speaks of nothing
    return f"registered as {name} {version}" if is_registered(settings.tracking_uri, name, version) else ""


def lost_publication(settings: Settings, store: ArtifactStore, artifact: Artifact) -> str:
    """Why what an artifact of published_model speaks of is to be published again, in a clause; "" while it is not."""
    from ernie_pipeline.registry.publish.lost import last_published, what_is_lost

    told = artifact.json("publication.json")
    return what_is_lost(settings.tracking_uri, told, last_published(_publications(store), told["repo"]))


def publication_told(settings: Settings, repo: str, store: ArtifactStore) -> str:
    """A sentence where what is published in the repository is not the champion; "" where it is, or nothing is.

    Raises `PipelineError` when the registry does not answer.
    """
    from ernie_pipeline.registry.publish.lost import last_published, what_is_there_instead

    return what_is_there_instead(settings.tracking_uri, last_published(_publications(store), repo))


def publication_refused(publish: Publish, store: ArtifactStore, certain: bool) -> str:
    """Why nothing could be published to the recipe's repository now, in a sentence; "" where nothing speaks against.

    A tag that is there already does only where it is `certain` that there is something new to publish: not at a
    newest commit that no artifact in the store speaks of, which may be of a run that was cut off before its record.
    """
    from ernie_pipeline.registry.publish.access import check_access, check_tag, tag_is_taken

    try:
        target = check_access(publish)
        if certain and check_tag(publish, target) and target.head in _published_commits(store):
            raise tag_is_taken(publish)
    except PipelineError as error:
        return str(error)
    return ""


def _published_commits(store: ArtifactStore) -> set[str]:
    """The commits of which an artifact in the store speaks, intact or not."""
    found = (_publication(store, fingerprint) for fingerprint in store.fingerprints(PUBLISHED))
    return {str(told.get("commit", "")) for told in found if told}


def _publications(store: ArtifactStore) -> list[dict[str, Any]]:
    """What the store's artifacts speak of, by the time of their builds."""
    made = {fingerprint: store.manifest(PUBLISHED, fingerprint)[0] for fingerprint in store.fingerprints(PUBLISHED)}
    built = sorted((str(manifest["built"]), fingerprint) for fingerprint, manifest in made.items() if manifest)
    told = (_publication(store, fingerprint) for _, fingerprint in built)
    return [each for each in told if each and {"published", "repo", "name", "version"} <= each.keys()]


def _publication(store: ArtifactStore, fingerprint: str) -> dict[str, Any]:
    """{} for one that cannot be read."""
    try:
        told = read_json(store.folder(PUBLISHED, fingerprint) / "publication.json")
    except NOT_READABLE:
        return {}
    return told if isinstance(told, dict) else {}
