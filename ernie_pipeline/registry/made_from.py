"""What a registered version was made from, as it was recorded with it: in its provenance, and nowhere else.

Versions registered before had it in tags of their own, one for each input and artifact: these are read too.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from ernie_pipeline.registry.provenance import (
    PROVENANCE,
    Values,
    read_provenance,
    recorded_fingerprints,
    recorded_inputs,
)
from ernie_pipeline.utils.address import local_folder

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

DATA_VERSION, FINGERPRINT = "data_version.", "fingerprint."
"""Begin the tags of a version from before: the rest is the name of an input, or of an artifact."""


@dataclass(frozen=True)
class MadeFrom:
    """The data versions of what the registration read, and the fingerprints of artifacts of its chain, by their names.

    `tagged`: the former by the tags of a version from before; {} for one whose provenance alone has them.
    """

    inputs: Mapping[str, str]
    fingerprints: Mapping[str, str]
    tagged: Mapping[str, str]


def made_from(tags: Mapping[str, str], statement: Values | None) -> MadeFrom:
    """By the tags of a version from before, else by the statement of provenance; nothing where there is neither."""
    inputs, fingerprints = _tagged(tags, DATA_VERSION), _tagged(tags, FINGERPRINT)
    stated = (recorded_inputs(statement), recorded_fingerprints(statement)) if statement else ({}, {})
    return MadeFrom(inputs or stated[0], fingerprints or stated[1], inputs)


def inputs_of(client: "MlflowClient", found: "ModelVersion") -> Mapping[str, str]:
    """The data versions of what a registration read, by the version alone; {} where nothing that says so can be had."""
    if tagged := _tagged(found.tags, DATA_VERSION):
        return tagged
    location = str(client.get_model_version_download_uri(found.name, found.version))
    with TemporaryDirectory(prefix="ernie_pipeline_") as scratch:
        try:
            return made_from({}, read_provenance(local_folder(location) or _fetched(location, scratch))).inputs
        except Exception:  # those of whatever keeps MLflow's artifacts: this version's may be gone, and ours is not
            return {}


def _fetched(location: str, scratch: str) -> Path:
    import mlflow

    return Path(mlflow.artifacts.download_artifacts(f"{location}/{PROVENANCE}", dst_path=scratch)).parent


def _tagged(tags: Mapping[str, str], prefix: str) -> dict[str, str]:
    return {key.removeprefix(prefix): value for key, value in tags.items() if key.startswith(prefix)}
