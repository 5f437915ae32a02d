"""A registered version, as the registry tells it, and its files as a folder on this machine."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from ernie_pipeline.registry.model_uri import MODELS, parse_model_uri
from ernie_pipeline.registry.registered_names import unknown_name
from ernie_pipeline.utils.address import local_folder
from ernie_pipeline.utils.errors import PipelineError

if TYPE_CHECKING:
    from mlflow import MlflowClient


@dataclass(frozen=True)
class Version:
    """A version of a registered model. `location`: where its files are said to be."""

    name: str
    version: str
    tags: Mapping[str, str]
    run_id: str
    location: str

    @property
    def uri(self) -> str:
        """As MLflow names it."""
        return f"models:/{self.name}/{self.version}"


def find_version(client: "MlflowClient", named: str | None, own_name: str) -> Version:
    """The version that is `named` as `parse_model_uri` has it; None: the champion of `own_name`, the recipe's model.

    Raises `PipelineError` for another form and for one that is not there.
    """
    from mlflow.exceptions import MlflowException

    asked = parse_model_uri(named or f"{MODELS}{own_name}@champion", own_name)
    name, alias, number = asked.name, asked.alias, asked.version
    try:
        found = client.get_model_version_by_alias(name, alias) if alias else client.get_model_version(name, number)
        location = client.get_model_version_download_uri(name, found.version)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        if unknown := unknown_name(client, name):
            raise PipelineError(f"{asked.uri}: {unknown}") from None
        place = f"with the alias {alias}" if alias else f"with the number {number}"
        hint = "name one that there is"
        if alias == "champion":
            hint = f"where the gate let none become it, name models:/{name}@challenger"
        raise PipelineError(f"there is no version of {name} {place} in the registry; {hint}") from None
    return Version(
        name=name,
        version=str(found.version),
        tags=dict(found.tags),
        run_id=str(found.run_id or ""),
        location=str(location),
    )


@contextmanager
def files_of(version: Version) -> Iterator[Path]:
    """The version's files: where they are if that is on this machine, else downloaded for as long as it takes.

    Raises `PipelineError` where they cannot be had.
    """
    if folder := local_folder(version.location):
        if not folder.is_dir():
            raise PipelineError(f"its folder {folder} is not on this machine")
        yield folder
        return
    import mlflow

    with TemporaryDirectory(prefix="ernie_pipeline_") as scratch:
        try:
            fetched = mlflow.artifacts.download_artifacts(version.location, dst_path=scratch)
        except Exception as error:  # those of whatever keeps MLflow's artifacts
            raise PipelineError(f"its files cannot be downloaded: {' '.join(str(error).split())[:300]}") from error
        yield Path(fetched)
