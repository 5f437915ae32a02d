"""What a registry has: whoever asks an empty one, or misspells a name, is told so."""

from typing import TYPE_CHECKING

from ernie_pipeline.utils.address import SQLITE, public_uri, sqlite_file
from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline.utils.near import did_you_mean

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from ernie_pipeline.recipe.settings import Settings

LISTED = 10


class NothingRegistered(PipelineError):
    """The registry at `tracking_uri` is empty, or not made yet. `run`: the command that registers a model there."""

    def __init__(self, tracking_uri: str, run: str = "ernie run"):
        self.tracking_uri = tracking_uri
        of_home = tracking_uri.startswith(SQLITE)
        where = sqlite_file(tracking_uri).parent if of_home else public_uri(tracking_uri)
        super().__init__(
            f'nothing is registered yet in {where}; build and register a model with "{run}", or name where there is '
            "one with --home (or MLFLOW_TRACKING_URI)"
        )


def check_registry(settings: "Settings") -> None:
    """Raise `NothingRegistered` where there is no registry to ask: MLflow would make an empty one."""
    settings.check_places()
    uri = settings.tracking_uri
    if uri.startswith(SQLITE) and not sqlite_file(uri).is_file():
        raise NothingRegistered(uri)


def check_name(client: "MlflowClient", name: str) -> None:
    """Raise `PipelineError` where the registry has no model of the name, with the one that was meant perhaps."""
    names = sorted(str(each.name) for each in client.search_registered_models())
    if not names:
        raise NothingRegistered(str(client.tracking_uri))
    if name not in names:
        listed = f"there are {', '.join(names[:LISTED])}{', ...' if len(names) > LISTED else ''}"
        raise PipelineError(f"the registry has no model {name!r}; {did_you_mean(name, names) or listed}")
