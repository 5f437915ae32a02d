"""Refreshing without a person: the job, its nightly schedule, and the sensor that watches the sources.

Of each recipe of the code location, see `recipes.py`. Both evaluate the plan and ask for a run of what is stale and
what waits for it, or say why they do not:

- nothing is stale;
- a run of these assets is queued or under way;
- the recipe asks for an asset that it did not ask for when this code location was opened;
- it is known before that one of them could not be built, such as one that is to be published with a wrong token;
- it is estimated to cost more than the budget of a refresh, ERNIE_PIPELINE_BUDGET;
- the last run for this target (the same recipe, code, libraries and sources) failed or was cancelled. Whoever has seen
  to the cause launches it again: "Re-execute" on the failed run's page, or `ernie run`. Any
  change of recipe, code or source is another target and starts afresh.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import dagster as dg

from ernie_pipeline.orchestration.opened import hand_on
from ernie_pipeline.orchestration.opening import told_when_opened
from ernie_pipeline.orchestration.recipes import COMPARED, RecipeAssets, check_where_validated, recipes_of
from ernie_pipeline.orchestration.report import pipeline_errors_as_failures
from ernie_pipeline.orchestration.stale_marks import report_artifacts, report_sources
from ernie_pipeline.recipe.budget import Budget
from ernie_pipeline.recipe.settings import Settings
from ernie_pipeline.staleness.chain import Chain
from ernie_pipeline.staleness.forecast import forecast
from ernie_pipeline.staleness.plan import RefreshPlan, make_plan
from ernie_pipeline.staleness.stages import open_chain
from ernie_pipeline.store.pins import Pins
from ernie_pipeline.utils.errors import PipelineError

TARGET = "ernie_pipeline/target"
"""Run tag: `RefreshPlan.target`, what the run was to bring about. Dagster copies it to re-executions."""
ESTIMATE = "ernie_pipeline/estimate"
"""Run tag: what its jobs were estimated at when it was requested."""

UNDER_WAY = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
GAVE_UP = [dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
CLAIM_S = 60.0
"""By then a requested run is on record."""


def check_times(cron: str, timezone: str) -> None:
    """Raise `PipelineError` where Dagster takes the one for no cron expression, or knows no such zone."""
    wrong = (
        ("UTC", f"ERNIE_PIPELINE_CRON = {cron!r} is no cron expression; write five fields, as in {Settings.cron!r}"),
        (timezone, f"ERNIE_PIPELINE_TIMEZONE = {timezone!r} is no time zone; write one as in 'Europe/Paris'"),
    )
    for zone, sentence in wrong:
        try:
            dg.ScheduleDefinition(job_name="refresh", cron_schedule=cron, execution_timezone=zone)
        except dg.DagsterInvalidDefinitionError as error:
            raise PipelineError(sentence) from error


with told_when_opened():
    SETTINGS = Settings.from_environment()
    check_times(SETTINGS.cron, SETTINGS.timezone)
    RECIPES = recipes_of(SETTINGS)
    check_where_validated(RECIPES)
    hand_on({each.recipe: each.shown for each in RECIPES})  # as they are now
"""The recipes of this code location."""


@dataclass(frozen=True)
class Automation:
    """What refreshes the assets of one recipe."""

    job: Any
    schedule: dg.ScheduleDefinition
    sensor: dg.SensorDefinition


def automation_of(recipe: RecipeAssets, settings: Settings) -> Automation:
    """The recipe's job and what launches it, at the times that the settings say."""
    selection = dg.AssetSelection.assets(*map(recipe.key, recipe.shown), *_compared())
    job = dg.define_asset_job(
        recipe.called("refresh"), selection=selection, description="Build every asset that is not fresh."
    )

    @dg.schedule(
        name=recipe.called("ernie_refresh"),
        job=job,
        cron_schedule=settings.cron,
        execution_timezone=settings.timezone,
        description="Build what is stale; skipped with the reason when nothing is. When: ERNIE_PIPELINE_CRON.",
    )
    def ernie_refresh(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        return evaluate(context.instance, by=recipe.called("ernie_refresh"), recipe=recipe)

    @dg.sensor(
        name=recipe.called("source_changed"),
        job=job,
        minimum_interval_seconds=settings.sensor_seconds,
        description="Build what is stale once the rows, the base model or the benchmark sets have another version.",
    )
    def source_changed(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        return _look_at_sources(context, recipe)

    return Automation(job, ernie_refresh, source_changed)


def _look_at_sources(context: dg.SensorEvaluationContext, recipe: RecipeAssets) -> dg.SensorResult | dg.SkipReason:
    with pipeline_errors_as_failures():
        chain = open_chain(recipe.settings())
        seen = " ".join(f"{name}={chain.version(name)}" for name in chain.sources)
        if seen == context.cursor:
            return dg.SkipReason(f"the sources are as they were: {seen}")
        answer, look_again = _evaluate(context.instance, chain, recipe, by=recipe.called("source_changed"))
    if isinstance(answer, dg.SkipReason) and (look_again or run_under_way(context.instance, recipe)):
        return answer  # without the cursor: it is looked at again after that run, or within another budget
    if isinstance(answer, dg.SkipReason):
        return dg.SensorResult(skip_reason=answer, cursor=seen)
    return dg.SensorResult(run_requests=[answer], cursor=seen)


def evaluate(
    instance: dg.DagsterInstance, by: str, recipe: RecipeAssets | None = None
) -> dg.RunRequest | dg.SkipReason:
    """The run that the plan asks for, or the reason for none. Brings Dagster's marks into line with the plan.

    `by`: the schedule or sensor that asks. `recipe`: whose assets, the first one's of this code location by default.
    """
    recipe = recipe or RECIPES[0]
    with pipeline_errors_as_failures():
        return _evaluate(instance, open_chain(recipe.settings()), recipe, by)[0]


def _evaluate(
    instance: dg.DagsterInstance, chain: Chain, recipe: RecipeAssets, by: str
) -> tuple[dg.RunRequest | dg.SkipReason, bool]:
    """What is asked for, and whether nothing is because of what may change by itself: the budget, or a refusal."""
    plan, budget = make_plan(chain), Budget.from_environment()
    report_sources(instance, plan, chain, recipe)
    if busy := run_under_way(instance, recipe):
        return _busy(busy), False
    report_artifacts(instance, plan, chain, recipe)
    answer = _decide(instance, plan, recipe)
    if isinstance(answer, dg.RunRequest):
        costs = forecast(chain, plan)
        if over := costs.over(budget):
            return dg.SkipReason(over), True
        answer = answer.with_replaced_attrs(tags={**answer.tags, ESTIMATE: costs.words(budget) or "no job to run"})
    if isinstance(answer, dg.RunRequest):
        # schedule and sensor may evaluate in the same second, before there is a run that either could see
        first = Pins(chain.store.root, f"request-{answer.run_key}").pin("by", lambda: by, valid_s=CLAIM_S)
        if first != by:
            return dg.SkipReason(f"{first} has asked for this run already"), False
    return answer, bool(plan.refused)


def _decide(instance: dg.DagsterInstance, plan: RefreshPlan, recipe: RecipeAssets) -> dg.RunRequest | dg.SkipReason:
    if plan.fresh:
        return dg.SkipReason("nothing is stale: every artifact that the recipe asks for is there, intact")
    if unknown := [name for name in plan.to_build if name not in recipe.versions]:
        return dg.SkipReason(
            f"the recipe asks for {', '.join(unknown)}, and did not when this code location was opened: press "
            '"Reload definitions"'
        )
    if plan.refused:
        return dg.SkipReason(plan.refused)
    target = recipe.in_run(plan.target)
    before = list(instance.get_runs(dg.RunsFilter(tags={TARGET: target})))  # the newest first
    if before and before[0].status in UNDER_WAY:  # it came on record since `run_under_way` looked
        return _busy(before[0])
    if before and before[0].status in GAVE_UP:
        return dg.SkipReason(
            f"run {before[0].run_id} for the same recipe, code and sources ended as {before[0].status.value}: see to "
            'its cause, then re-execute it or run "ernie run"'
        )
    # the number tells a target that was reached and then lost (an artifact was deleted) from one never reached
    return dg.RunRequest(
        run_key=f"{target}-{len(before)}",
        asset_selection=[*(recipe.key(name) for name in plan.to_build), *_compared()],
        tags={TARGET: target},
    )


def _busy(run: dg.DagsterRun) -> dg.SkipReason:
    return dg.SkipReason(f"run {run.run_id} is {run.status.value}: the next evaluation looks again")


def _compared() -> list[dg.AssetKey]:
    """The asset that compares the recipes, where there are several: it is made anew with what any of them builds."""
    return [dg.AssetKey(COMPARED)] if len(RECIPES) > 1 else []


def run_under_way(instance: dg.DagsterInstance, recipe: RecipeAssets) -> dg.DagsterRun | None:
    """A queued or running run of any of the recipe's assets, whoever started it."""
    runs: Iterable[dg.DagsterRun] = instance.get_runs(dg.RunsFilter(statuses=UNDER_WAY))
    ours, job = {*map(recipe.key, recipe.versions)}, recipe.called("refresh")
    return next((r for r in runs if r.job_name == job or ours & set(r.asset_selection or ())), None)
