"""The tags by which Dagster tells whether an asset is stale, and where an asset's page says that its artifact is."""

import socket
from pathlib import Path

import pytest

from ernie_pipeline.orchestration.report import origin, version_tags
from ernie_pipeline.staleness.stage import EARLIER_ADAPTER
from ernie_pipeline.store.artifacts import Artifact


def test_a_result_names_a_version_of_each_asset_above_and_of_nothing_else() -> None:
    """A round before is no asset; one that the recipe does not let read the rows depends on them in Dagster's eyes."""
    made_from = {"declared_version": "c0de", "inputs": {"base_model": "sha256:1", EARLIER_ADAPTER: "2"}}
    assert version_tags(made_from, unread={"math_split": "3"}) == {
        "dagster/code_version": "c0de",
        "dagster/input_data_version/base_model": "sha256:1",
        "dagster/input_data_version/math_split": "3",
    }


def test_the_page_of_what_is_in_a_bucket_names_it_there_and_here_only_what_is_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another machine's path would lead nowhere on the one that shows the page."""
    manifest = {"stage": "math_split", "fingerprint": "f00d", "seconds": 1.0, "built": "2026-01-01", "cost": None}
    artifact = Artifact(tmp_path / "here", manifest)
    monkeypatch.setenv("ERNIE_PIPELINE_HOME", str(tmp_path))
    assert origin(artifact)["artifact"].path == str(tmp_path / "here")
    monkeypatch.setenv("ERNIE_PIPELINE_HOME", "s3://bucket/home/")
    told = origin(artifact)
    assert told["artifact"].text == "s3://bucket/home/store/math_split/f00d"
    assert not [name for name in told if name.startswith("copy")]
    artifact.folder.mkdir()
    assert origin(artifact)[f"copy on {socket.gethostname()}"].path == str(artifact.folder)
