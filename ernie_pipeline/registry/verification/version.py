"""A registered version, as the registry tells it, and its files as a folder on this machine."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from ernie_pipeline.registry.aliases import CHAMPION
from ernie_pipeline.registry.model_uri import Named, parse_model_uri
from ernie_pipeline.registry.registered_names import check_name
from ernie_pipeline.utils.address import local_folder
from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline.utils.near import did_you_mean

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

    asked = parse_model_uri(named or CHAMPION, own_name)
    name, alias, number = asked.name, asked.alias, asked.version
    try:
        found = client.get_model_version_by_alias(name, alias) if alias else client.get_model_version(name, number)
        location = client.get_model_version_download_uri(name, found.version)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        check_name(client, name)
        raise PipelineError(_not_there(client, asked)) from None
    return Version(
        name=name,
        version=str(found.version),
        tags=dict(found.tags),
        run_id=str(found.run_id or ""),
        location=str(location),
    )


def _not_there(client: "MlflowClient", asked: Named) -> str:
    """That a model which is there has no such version, and what to name instead."""
    if asked.version:
        return f"there is no version of {asked.name} with the number {asked.version} in the registry; name one there is"
    aliases = sorted(client.get_registered_model(asked.name).aliases)
    hint = did_you_mean(asked.alias, aliases) or f"its aliases: {', '.join(aliases) or 'none, name a number'}"
    if asked.alias == CHAMPION:
        hint = f"where the gate let none become it, name another ({', '.join([*aliases, 'a number'])})"
    return f"there is no version of {asked.name} with the alias {asked.alias} in the registry; {hint}"


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
