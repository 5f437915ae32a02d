"""One cluster for the tests of this folder: it takes most of a minute to start on a busy machine."""

from collections.abc import Iterator

import pytest

from ernie_pipeline_tests.launch.ray.cluster import Cluster


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A worker of one CPU; a test that wants more says so, see `Cluster.have`: each takes ten seconds to start."""
    with Cluster(workers=1) as cluster:
        yield cluster
