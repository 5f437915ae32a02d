"""A bucket on loopback, and a stand-in for Modal."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ernie_pipeline_tests.launch.children import python_path
from ernie_pipeline_tests.launch.modal.standin import StandIn
from ernie_pipeline_tests.launch.modal.steps import Steps
from ernie_pipeline_tests.store.shared.conftest import address, bucket, running, server

__all__ = ["address", "bucket", "running", "server"]


@pytest.fixture
def standin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    standin = StandIn(tmp_path / "modal").install(monkeypatch)
    standin.folder.mkdir()
    yield standin
    standin.end()


@pytest.fixture
def steps(standin: StandIn, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Steps:
    """Steps of one build, whose work is in a module that the containers have, as the image would."""
    image = tmp_path / "image"
    image.mkdir()
    monkeypatch.setenv("PYTHONPATH", python_path(image))
    monkeypatch.setenv("ERNIE_PIPELINE_HOME", address)
    monkeypatch.setenv("ERNIE_PIPELINE_CACHE", str(tmp_path / "home"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////nowhere")
    return Steps(tmp_path / "home", address, standin, image)
