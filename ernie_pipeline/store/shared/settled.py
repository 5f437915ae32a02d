"""From the settings to the store: a folder, or a bucket with a folder before it."""

import hashlib

from ernie_pipeline.recipe.settings import Settings
from ernie_pipeline.store.artifacts import ArtifactStore
from ernie_pipeline.store.aside import is_own_file, make_way
from ernie_pipeline.store.shared.bucket import Bucket
from ernie_pipeline.store.shared.store import SharedStore

CHECKED = ".shared/checked"
"""Where it is noted that a bucket was tried; each has a note of its own, as one cache may serve one after another."""


def open_store(settings: Settings, for_run: bool, fetch: bool | None = None) -> ArtifactStore:
    """The store of these settings. `for_run`: one that a run works with; else it is only looked at.

    `fetch`: whether artifacts that are found in a bucket are downloaded at once, as for a run where it is None.

    Makes no request, but for a run the first ones on this machine, which try whether the bucket keeps conditions: for
    one that does not, `PipelineError` is raised.
    """
    if settings.address is None:
        return ArtifactStore(settings.store)
    store = SharedStore(
        settings.store,
        Bucket(settings.address),
        fetch=for_run if fetch is None else fetch,
        lease_s=settings.lease_seconds,
    )
    checked = settings.store / f"{CHECKED}-{hashlib.sha256(settings.address.encode()).hexdigest()[:16]}"
    if for_run and not is_own_file(checked):
        settings.make_home()
        store.check_bucket()
        make_way(checked, settings.store).touch()
    return store
