"""The assets of a recipe's suites, made for each suite that it names when the code location is opened."""

from collections.abc import Iterable

from ernie_pipeline.orchestration.assets.suites.answers import answers
from ernie_pipeline.orchestration.assets.suites.comparison import comparison
from ernie_pipeline.orchestration.assets.suites.problems import problem_set, problems
from ernie_pipeline.orchestration.recipes import Made
from ernie_pipeline.staleness.suites import ADAPTER, BASE


def suite_sets(names: Iterable[str]) -> list[Made]:
    """The observed sets of the suites."""
    return [problem_set(name) for name in names]


def suite_assets(names: Iterable[str]) -> list[Made]:
    """What is built for each suite."""
    return [
        asset
        for name in names
        for asset in (problems(name), answers(name, BASE), answers(name, ADAPTER), comparison(name))
    ]
