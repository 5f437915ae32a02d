"""What the schedule and the sensor ask for, and why they do not, by their own evaluation functions."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.test_utils import create_run_for_test

from ernie_pipeline.orchestration import automation
from ernie_pipeline.orchestration.automation import (
    ESTIMATE,
    RECIPES,
    SETTINGS,
    TARGET,
    automation_of,
    check_times,
    evaluate,
)
from ernie_pipeline.orchestration.recipes import RecipeAssets
from ernie_pipeline.orchestration.stale_marks import report_artifacts
from ernie_pipeline.recipe.settings import Settings
from ernie_pipeline.staleness.stages import STAGES, open_chain
from ernie_pipeline.store.history import remember
from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline_tests.scenarios.chain import rows as sums
from ernie_pipeline_tests.scenarios.chain import write_rows

RECIPE = '[base_model]\nname = "demo"\n[training]\nmax_steps = {steps}\n[source]\nkind = "file"\npath = "{source}"\n'


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The rows' file of a recipe of which nothing is built."""
    rows = tmp_path / "rows.jsonl"
    write_rows(rows, sums(range(1)))
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE.format(steps=4, source=rows))
    for name, value in {"HOME": tmp_path / "home", "RECIPE": recipe}.items():
        monkeypatch.setenv(f"ERNIE_PIPELINE_{name}", str(value))
    return rows


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def asked(instance: dg.DagsterInstance, by: str = "ernie_refresh") -> dg.RunRequest | dg.SkipReason:
    return evaluate(instance, by)


def requested(answer: dg.RunRequest | dg.SkipReason) -> dg.RunRequest:
    assert isinstance(answer, dg.RunRequest), answer
    return answer


def reason(answer: dg.RunRequest | dg.SkipReason) -> str:
    assert isinstance(answer, dg.SkipReason), answer
    return str(answer.skip_message)


def test_schedule_and_sensor_at_once_ask_for_one_run(source: Path, instance: dg.DagsterInstance) -> None:
    requested(asked(instance))
    assert reason(asked(instance, by="source_changed")) == "ernie_refresh has asked for this run already"
    requested(asked(instance))  # its own tick, taken up again after a crash


def test_a_run_that_comes_on_record_while_it_is_evaluated_is_seen(
    source: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the sensor's does between the schedule's first look and its second."""
    first = requested(asked(instance, by="source_changed"))

    def meanwhile(*arguments: Any) -> None:
        ended(instance, first, dg.DagsterRunStatus.STARTED)
        report_artifacts(*arguments)

    monkeypatch.setattr(automation, "report_artifacts", meanwhile)
    assert reason(asked(instance)).endswith(" is STARTED: the next evaluation looks again")


def ended(instance: dg.DagsterInstance, request: dg.RunRequest, status: dg.DagsterRunStatus) -> dg.DagsterRun:
    """The requested run, as it would be on record now."""
    return create_run_for_test(instance, job_name="refresh", status=status, tags=dict(request.tags))


def test_a_stale_chain_is_requested_under_a_key_of_what_is_wanted(source: Path, instance: dg.DagsterInstance) -> None:
    request = requested(asked(instance))
    assert request.asset_selection == [dg.AssetKey(name) for name in STAGES]
    assert requested(asked(instance)).run_key == request.run_key
    write_rows(source, sums(range(2)))
    assert requested(asked(instance)).run_key != request.run_key


def test_only_what_is_stale_and_what_is_below_is_requested(source: Path, instance: dg.DagsterInstance) -> None:
    chain = open_chain(Settings.from_environment())
    chain.reuse_or_build("raw_nemotron", lambda _, out: (out / "rows").write_text("1") and None)
    request = requested(asked(instance))
    assert request.asset_selection == [dg.AssetKey(name) for name in STAGES if name != "raw_nemotron"]
    assert instance.get_latest_materialization_event(dg.AssetKey("raw_nemotron")), "what is fresh is reported as such"


def test_what_could_not_be_published_is_not_requested(
    source: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = source.with_name("recipe.toml")
    recipe.write_text(recipe.read_text() + '[publish]\nrepo = "me/model"\n')
    assert "the recipe asks for published_model, and did not when" in reason(asked(instance))
    monkeypatch.setitem(RECIPES[0].versions, "published_model", "as of a code location that has it")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", "/nowhere")
    assert reason(asked(instance)).startswith("published_model cannot be built: there is no token to publish to me/")


@pytest.mark.parametrize("status", [dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED])
def test_a_run_that_gave_up_is_not_launched_again_until_something_changes(
    source: Path, instance: dg.DagsterInstance, status: dg.DagsterRunStatus
) -> None:
    run = ended(instance, requested(asked(instance)), status)
    for _ in range(2):
        why = reason(asked(instance))
        assert run.run_id in why
        assert "ernie run" in why
    write_rows(source, sums(range(2)))
    requested(asked(instance))


def test_what_a_failed_run_had_already_built_does_not_launch_it_again(
    source: Path, instance: dg.DagsterInstance
) -> None:
    ended(instance, requested(asked(instance)), dg.DagsterRunStatus.FAILURE)
    chain = open_chain(Settings.from_environment())
    chain.reuse_or_build("raw_nemotron", lambda _, out: (out / "rows").write_text("1") and None)
    assert "ended as FAILURE" in reason(asked(instance))


def test_what_was_reached_and_then_lost_is_launched_again(source: Path, instance: dg.DagsterInstance) -> None:
    first = requested(asked(instance))
    ended(instance, first, dg.DagsterRunStatus.SUCCESS)
    again = requested(asked(instance))  # as after a deletion: the run succeeded, and still something is stale
    assert again.run_key != first.run_key
    assert again.tags[TARGET] == first.tags[TARGET]


def test_a_retry_that_succeeded_counts_more_than_the_failure_before_it(
    source: Path, instance: dg.DagsterInstance
) -> None:
    first = requested(asked(instance))
    ended(instance, first, dg.DagsterRunStatus.FAILURE)
    ended(instance, first, dg.DagsterRunStatus.SUCCESS)  # "Re-execute" copies the tags
    assert requested(asked(instance)).run_key != first.run_key


@pytest.mark.parametrize("status", [dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTED])
def test_nothing_is_launched_beside_a_run_under_way(
    source: Path, instance: dg.DagsterInstance, status: dg.DagsterRunStatus
) -> None:
    by_hand = create_run_for_test(
        instance, job_name="__ASSET_JOB", status=status, asset_selection={dg.AssetKey("math_split")}
    )
    assert by_hand.run_id in reason(asked(instance))
    assert not instance.get_latest_materialization_event(dg.AssetKey("raw_nemotron"))


def test_a_run_of_other_assets_does_not_matter(source: Path, instance: dg.DagsterInstance) -> None:
    create_run_for_test(
        instance, job_name="others", status=dg.DagsterRunStatus.STARTED, asset_selection={dg.AssetKey("elsewhere")}
    )
    requested(asked(instance))


def sensor_tick(instance: dg.DagsterInstance, cursor: str | None) -> dg.SensorResult | dg.SkipReason:
    with dg.build_sensor_context(instance, cursor=cursor) as context:
        result = automation_of(RecipeAssets(SETTINGS.recipe), SETTINGS).sensor(context)
    assert isinstance(result, dg.SensorResult | dg.SkipReason)
    return result


def test_the_sensor_asks_once_for_each_version_of_the_sources(source: Path, instance: dg.DagsterInstance) -> None:
    first = sensor_tick(instance, None)
    assert isinstance(first, dg.SensorResult)
    assert first.run_requests
    assert first.cursor
    same = sensor_tick(instance, first.cursor)
    assert "the sources are as they were" in reason(same)
    write_rows(source, sums(range(2)))
    changed = sensor_tick(instance, first.cursor)
    assert isinstance(changed, dg.SensorResult)
    assert changed.run_requests
    assert changed.cursor != first.cursor


def test_the_sensor_looks_again_after_a_run_that_was_in_its_way(source: Path, instance: dg.DagsterInstance) -> None:
    create_run_for_test(instance, job_name="refresh", status=dg.DagsterRunStatus.STARTED)
    assert "is STARTED" in reason(sensor_tick(instance, "an earlier version"))  # a SkipReason keeps the cursor


@pytest.fixture
def adapter_of_an_hour(source: Path) -> None:
    """The history of a training of 100 steps, which took an hour on one GPU."""
    chain = open_chain(Settings.from_environment())
    stage = chain.stages["qlora_adapter"]
    made_from = chain.provenance("qlora_adapter", {name: "before" for name in stage.inputs if name != "base_model"})
    hour = {"seconds": 3600.0, "gpu_seconds": 3600.0, "jobs": 1, "overhead_s": 600.0}
    work = {"unit": "samples", "amount": 800, "rows": 8, "made": 800, "work_s": 3000.0}
    recipe = {**made_from.recipe, "training": {**made_from.recipe["training"], "max_steps": 100}}
    manifest = {**asdict(made_from), "recipe": recipe, "data_version": "d", "seconds": 3600.0, "built": "2026-11-28"}
    remember(chain.store, {**manifest, "cost": hour | work})


def test_a_run_that_is_estimated_above_the_budget_is_not_asked_for_and_later_looked_at_again(
    source: Path, instance: dg.DagsterInstance, adapter_of_an_hour: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ERNIE_PIPELINE_BUDGET", "10min")
    told = (
        "the refresh is not started: it is estimated at 720 s or more, and ERNIE_PIPELINE_BUDGET = 10min is its cap; "
        'raise it, or build a part at a time with "dagster asset materialize --select"'
    )
    assert reason(asked(instance)) == told
    assert reason(sensor_tick(instance, "an earlier version")) == told  # a SkipReason keeps the cursor
    monkeypatch.setenv("ERNIE_PIPELINE_BUDGET", "13min")
    monkeypatch.setenv("ERNIE_PIPELINE_GPU_PRICE", "3 EUR")
    estimate = requested(asked(instance)).tags[ESTIMATE]
    assert estimate.startswith("720 GPU s (0.60 EUR), unknown for ")


def test_a_budget_that_cannot_be_read_fails_the_tick_in_one_sentence(
    source: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ERNIE_PIPELINE_BUDGET", "10 USD")
    with pytest.raises(dg.Failure, match="which is not set"):
        asked(instance)


def test_a_source_that_changed_is_observed_once(source: Path, instance: dg.DagsterInstance) -> None:
    def observations() -> int:
        asked(instance)
        return len(instance.fetch_observations(dg.AssetKey("nemotron_source"), limit=9).records)

    assert (observations(), observations()) == (1, 1)
    write_rows(source, sums(range(2)))
    assert (observations(), observations()) == (2, 2)


def test_a_source_that_is_not_there_fails_the_tick_in_one_sentence(source: Path, instance: dg.DagsterInstance) -> None:
    source.unlink()
    with pytest.raises(dg.Failure, match=r"source file .*rows\.jsonl does not exist; set source\.path"):
        asked(instance)


def test_the_schedule_is_nightly_and_evaluates_the_same_plan(source: Path) -> None:
    ernie_refresh = automation_of(RECIPES[0], SETTINGS).schedule
    when = (ernie_refresh.name, ernie_refresh.cron_schedule, ernie_refresh.execution_timezone)
    assert when == ("ernie_refresh", "0 2 * * *", "UTC")
    with dg.instance_for_test() as instance, dg.build_schedule_context(instance) as context:
        assert requested(ernie_refresh(context)).tags[TARGET] == requested(asked(instance)).tags[TARGET]


@pytest.mark.parametrize(
    ("cron", "timezone", "said"),
    [
        ("nonsense", "UTC", "ERNIE_PIPELINE_CRON = 'nonsense' is no cron expression; write five fields"),
        ("61 * * * *", "UTC", "ERNIE_PIPELINE_CRON = '61"),
        ("0 2 * * * *", "Mars/Olympus", "ERNIE_PIPELINE_CRON = '0 2"),
        ("0 2 * * *", "Mars/Olympus", "ERNIE_PIPELINE_TIMEZONE = 'Mars/Olympus' is no time zone; write one as in"),
    ],
)
def test_times_that_are_none_are_said_in_a_sentence_that_names_the_setting(cron: str, timezone: str, said: str) -> None:
    with pytest.raises(PipelineError) as caught:
        check_times(cron, timezone)
    assert str(caught.value).startswith(said)
    check_times("*/5 * * * *", "Europe/Paris")
