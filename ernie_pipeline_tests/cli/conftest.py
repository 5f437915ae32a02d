"""The command line in a process of its own, and homes for it."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from ernie_pipeline.recipe.settings import Settings, sqlite_uri
from ernie_pipeline.registry.tracking import CHECKED, connected
from ernie_pipeline.staleness.stage import Work
from ernie_pipeline.staleness.stages import open_chain
from ernie_pipeline.store.sealed import list_files
from ernie_pipeline_tests.cli.own_process import ADAPTER, Run
from ernie_pipeline_tests.staleness.chains import walk


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def run(home: Path) -> Run:
    """Run `python ARGUMENTS` for the recipe demo in a home of its own."""

    def run_python(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        variables = {k: v for k, v in os.environ.items() if not k.startswith(("ERNIE_", "DAGSTER_", "MLFLOW_"))}
        variables |= {"ERNIE_PIPELINE_HOME": str(home)} | environment
        return subprocess.run([sys.executable, *arguments], env=variables, capture_output=True, text=True)

    return run_python


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's database with three checked versions of the model quick, the last of which is its champion."""
    file = tmp_path_factory.mktemp("registry") / "mlflow.db"
    with connected(sqlite_uri(file)) as client:
        client.create_registered_model("quick")
        for _ in range(3):
            client.create_model_version("quick", source="file:///", tags={CHECKED: "0.0"})
        client.set_registered_model_alias("quick", "champion", "3")
    return file


@pytest.fixture
def fresh(home: Path, registry: Path) -> Path:
    """A home in which everything is fresh: each stage wrote a line, and the registry has what they registered."""
    files = home / "mlartifacts"
    files.mkdir(parents=True)
    (files / ADAPTER).write_bytes(b"weights")
    shutil.copy(registry, home / "mlflow.db")
    with sqlite3.connect(home / "mlflow.db") as database:
        database.execute("UPDATE model_versions SET storage_location = ? WHERE version = 3", (files.as_uri(),))
    made = {"name": "quick", "version": "3", "aliases": ["champion"], "files": list_files(files)}
    made |= {"promoted": False, "reasons": ["the gain is too small."]}

    def register(work: Work, out: Path) -> None:
        (out / "registration.json").write_text(json.dumps(made))

    settings = Settings(home, "demo", None, sqlite_uri(home / "mlflow.db"))
    walk(open_chain(settings), registered_model=register)
    return home
