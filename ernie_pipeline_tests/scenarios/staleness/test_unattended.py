"""Scenarios 18 and 5, with Dagster's real daemon: the ticks of schedule and sensor, and the runs that they launch."""

from concurrent.futures import Future

import dagster as dg

from ernie_pipeline_tests.scenarios.chain import ASSETS
from ernie_pipeline_tests.scenarios.staleness.unattended import Watched

STALE = {*ASSETS} - {"verified_solutions"}
"""What the changed source is read by: the recipe there does not ask for solutions."""


def test_the_daemon_builds_what_is_stale_once_and_leaves_a_failed_refresh_alone(daemon: "Future[Watched]") -> None:
    """It has been at work beside the tests before this one; see `conftest.py`.

    Scenario 5: rows came that the filters drop; the data is rebuilt, and nothing below.
    """
    watched = daemon.result()
    first, second = watched.runs
    assert (first.job_name, first.status) == ("refresh", dg.DagsterRunStatus.SUCCESS)
    assert {key.to_user_string() for key in first.asset_selection or ()} == STALE
    assert watched.reported[0] == {name: name not in ("raw_nemotron", "math_split") for name in STALE}
    assert (second.job_name, second.status) == ("refresh", dg.DagsterRunStatus.FAILURE)
    assert {status for status, _ in watched.ticks.values()} == {"SKIPPED"}
    assert "the sources are as they were" in watched.ticks["source_changed"][1]
    assert f"run {second.run_id} for the same recipe, code and sources ended" in watched.ticks["ernie_refresh"][1]
