"""From the settings to the store: a folder, or a bucket with a folder before it."""

from ernie_pipeline.recipe.settings import Settings
from ernie_pipeline.store.artifacts import ArtifactStore
from ernie_pipeline.store.shared.bucket import Bucket
from ernie_pipeline.store.shared.store import SharedStore

CHECKED = ".shared/checked"


def open_store(settings: Settings, for_run: bool) -> ArtifactStore:
    """The store of these settings. `for_run`: one that a run works with; else it is only looked at.

    Makes no request, but for a run the first ones on this machine, which try whether the bucket keeps conditions: for
    one that does not, `PipelineError` is raised.
    """
    if settings.address is None:
        return ArtifactStore(settings.store)
    store = SharedStore(settings.store, Bucket(settings.address), fetch=for_run, lease_s=settings.lease_seconds)
    checked = settings.store / CHECKED
    if for_run and not checked.is_file():
        settings.make_home()
        store.check_bucket()
        checked.parent.mkdir(parents=True, exist_ok=True)
        checked.touch()
    return store
