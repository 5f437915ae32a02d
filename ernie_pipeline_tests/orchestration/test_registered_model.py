"""What the page of a registered model says of its aliases, which move after it was written."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ernie_pipeline.orchestration.pages.registration import aliases
from ernie_pipeline.recipe.settings import Settings, sqlite_uri
from ernie_pipeline.registry.tracking import CHECKED, connected
from ernie_pipeline.store.artifacts import Artifact


def test_aliases_are_those_that_the_registry_has_when_the_page_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(tmp_path, "demo", None, sqlite_uri(tmp_path / "mlflow.db"))
    said = {"name": "quick", "version": "1", "aliases": ["challenger", "champion"]}
    (tmp_path / "registration.json").write_text(json.dumps(said))
    artifact = Artifact(tmp_path, {})

    def shown(settings: Settings) -> list[str]:
        told = aliases(artifact.json("registration.json"), settings)
        assert next(iter(told)) == "aliases at registration"
        assert told.pop("aliases at registration") == "challenger, champion"
        [(name, value)] = told.items()
        return [name, value]

    with connected(settings.tracking_uri) as client:
        client.create_registered_model("quick")
        for _ in range(2):
            client.create_model_version("quick", source="file:///", tags={CHECKED: "0"})
        client.set_registered_model_alias("quick", "challenger", "2")
        client.set_registered_model_alias("quick", "champion", "1")
        assert shown(settings)[1].startswith("champion (read from the registry at ")
        client.set_registered_model_alias("quick", "champion", "2")
        assert shown(settings)[1].startswith("none (read from the registry at ")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    assert shown(replace(settings, tracking_uri="http://127.0.0.1:9"))[1].startswith("not known: MLflow at http://")
