"""One cluster for the tests of this folder: it takes most of a minute to start on a busy machine."""

from collections.abc import Iterator

import pytest

from ernie_pipeline_tests.launch.ray.cluster import Cluster


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Two workers of one CPU each."""
    with Cluster(workers=2) as cluster:
        yield cluster
