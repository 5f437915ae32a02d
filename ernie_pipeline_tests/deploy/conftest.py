"""The services of compose.yaml on a PostgreSQL of their own; skipped where there is no PostgreSQL."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ernie_pipeline_tests.deploy.cluster import Cluster, binaries, running_cluster
from ernie_pipeline_tests.deploy.compose import DEPLOY, SECRETS, Services


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """With the databases that compose's PostgreSQL has."""
    if not binaries():
        pytest.skip("no PostgreSQL in /usr/lib/postgresql; `apt-get install postgresql` brings it")
    with running_cluster() as started:
        started.sql("CREATE DATABASE dagster")
        started.run_file(DEPLOY / "postgres" / "databases.sql")
        yield started


@pytest.fixture(scope="module")
def services(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """None is started yet; all are ended afterwards. The recipe is a file that a test may write."""
    folder: Path = tmp_path_factory.mktemp("volumes")
    made = Services(cluster, folder, {**SECRETS, "ERNIE_PIPELINE_RECIPE": str(folder / "recipe.toml")})
    try:
        yield made
    finally:
        made.stop_all()
