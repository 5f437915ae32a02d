"""From the settings to the store: a folder, or a bucket with a folder before it."""

import hashlib

from ernie_pipeline.recipe import home_format
from ernie_pipeline.recipe.settings import Settings
from ernie_pipeline.store.artifacts import ArtifactStore
from ernie_pipeline.store.aside import is_own_file, make_way
from ernie_pipeline.store.shared.bucket import Bucket
from ernie_pipeline.store.shared.format import check_format, write_format
from ernie_pipeline.store.shared.store import SharedStore

CHECKED = ".shared/checked"
"""Where it is noted that a bucket was tried; each has a note of its own, as one cache may serve one after another."""


def open_store(settings: Settings, for_run: bool, fetch: bool | None = None) -> ArtifactStore:
    """The store of these settings. `for_run`: one that a run works with; else it is only looked at.

    `fetch`: whether artifacts that are found in a bucket are downloaded at once, as for a run where it is None.

    Raises `PipelineError` for a home that a newer version of this package has written in.

    Makes no request, but for a run: whether the bucket is of a format that this package knows and, the first time on
    this machine, whether it keeps conditions; where not, `PipelineError` is raised. One that is only looked at is asked
    for its format when something is looked for there.
    """
    home_format.check_format(settings.store)
    if settings.address is None:
        return ArtifactStore(settings.store)
    store = SharedStore(
        settings.store,
        Bucket(settings.address),
        fetch=for_run if fetch is None else fetch,
        lease_s=settings.lease_seconds,
    )
    if not for_run:
        return store
    said = check_format(store.bucket)  # before anything is written
    checked = settings.store / f"{CHECKED}-{hashlib.sha256(settings.address.encode()).hexdigest()[:16]}"
    if not is_own_file(checked):
        store.check_bucket()
        settings.make_home()
        make_way(checked, settings.store).touch()
    if said is None or said.body != home_format.format_text():
        write_format(store.bucket)
    return store
