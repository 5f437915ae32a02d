"""A stand-in of the Kubernetes API for each test."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ernie_pipeline_tests.launch.children import python_path
from ernie_pipeline_tests.launch.kubernetes.counting import COUNTING
from ernie_pipeline_tests.launch.kubernetes.server import Api
from ernie_pipeline_tests.launch.kubernetes.steps import Steps

WORK = f"kubernetes_work_of_test_{os.getpid()}"


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    """It ends, with all pods, when the test does."""
    api = Api(tmp_path / "cluster")
    yield api
    api.close()


@pytest.fixture
def steps(api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Steps:
    """Steps whose pods count."""
    monkeypatch.setenv("PYTHONPATH", python_path(tmp_path))
    (tmp_path / f"{WORK}.py").write_text(COUNTING, encoding="utf-8")
    return Steps(tmp_path, api.kubeconfig, WORK)
