"""What a champion was made from, as the gate reads it: from its provenance, or from the tags of a version of before."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ernie_pipeline.recipe.settings import sqlite_uri
from ernie_pipeline.registry.made_from import inputs_of
from ernie_pipeline.registry.provenance import PROVENANCE, write_provenance
from ernie_pipeline.registry.tracking import connected
from ernie_pipeline_tests.registry.conftest import SPLIT, provenance


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with connected(sqlite_uri(tmp_path_factory.mktemp("home") / "mlflow.db")) as client:
        client.create_registered_model("quick")
        yield client


def test_inputs_are_read_from_the_provenance_and_of_a_version_from_before_from_its_tags(
    client: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "its files %20"
    folder.mkdir()
    write_provenance(folder, provenance("sha256:adapter"))
    new = client.create_model_version("quick", source=folder.as_uri(), tags={})
    assert inputs_of(client, new) == {"math_split": SPLIT, "qlora_adapter": "sha256:adapter"}
    old = client.create_model_version(
        "quick", source=folder.as_uri(), tags={"data_version.qlora_adapter": "sha256:old"}
    )
    assert inputs_of(client, client.get_model_version("quick", old.version)) == {"qlora_adapter": "sha256:old"}
    (folder / PROVENANCE).write_text("[]")
    assert inputs_of(client, new) == {}
    (folder / PROVENANCE).unlink()
    assert inputs_of(client, new) == {}
