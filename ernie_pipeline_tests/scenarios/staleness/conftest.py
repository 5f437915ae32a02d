"""One home for all scenarios, built by runs that were killed in every stage; each scenario gets its own copy."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from threading import Event

import pytest

from ernie_pipeline_tests.scenarios.chain import QUICK_RECIPE, write_rows
from ernie_pipeline_tests.scenarios.homes import ALL_IN_A_BUCKET, in_a_bucket
from ernie_pipeline_tests.scenarios.staleness.kills import Story, tell
from ernie_pipeline_tests.scenarios.staleness.unattended import Watched, watch
from ernie_pipeline_tests.scenarios.staleness.workplace import ROWS, SOURCE, Workplace, copy_package


@pytest.fixture(scope="session", autouse=True)
def _homes() -> Iterator[None]:
    """Folders, or all in a bucket; see `homes.py`."""
    with in_a_bucket() if ALL_IN_A_BUCKET else nullcontext():
        yield


@pytest.fixture(scope="session")
def story(_homes: None, tmp_path_factory: pytest.TempPathFactory) -> Story:
    """See `kills.py`: a minute. It asserts nothing, so that one broken claim does not hide all the others."""
    folder = tmp_path_factory.mktemp("scenarios")
    recipe = folder / "recipe.toml"
    recipe.write_text(QUICK_RECIPE.replace('kind = "demo"\nrows = 300', f'kind = "file"\npath = "{folder / SOURCE}"'))
    write_rows(folder / SOURCE, ROWS)
    return tell(Workplace(folder / "home", recipe, copy_package(folder / "code")))


@pytest.fixture(scope="session", autouse=True)
def daemon(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> "Iterator[Future[Watched] | None]":
    """Dagster's daemon at work on a copy of the home, from the first scenario on: it needs two turns of a minute.

    Its own test comes last of this folder's, and is the only one that asks for the result.
    """
    if not any(item.path.name == "test_unattended.py" for item in request.session.items):
        yield None
        return
    story: Story = request.getfixturevalue("story")
    stop = Event()
    with ThreadPoolExecutor(1) as executor:
        yield executor.submit(watch, story.place.copy(tmp_path_factory.mktemp("unattended")), stop)
        stop.set()


@pytest.fixture
def built(story: Story, tmp_path: Path) -> Workplace:
    """A copy of the home in which everything is built and fresh, and of its recipe; the code is shared."""
    return story.place.copy(tmp_path)


@pytest.fixture
def built_with_code(story: Story, tmp_path: Path) -> Workplace:
    """The same with a copy of the code, to be edited."""
    return story.place.copy(tmp_path, code=True)
