"""What every asset does alike: reuse or build its stage, then show it in Dagster."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import dagster as dg

from ernie_pipeline.launch.parent import end_with_run
from ernie_pipeline.orchestration.cost_report import estimate_metadata, spent_metadata
from ernie_pipeline.orchestration.origin import address_of, origin, reason
from ernie_pipeline.orchestration.pages.sources import show_source
from ernie_pipeline.orchestration.recipes import RecipeAssets, recipe_of
from ernie_pipeline.orchestration.words import duration
from ernie_pipeline.recipe.budget import Budget
from ernie_pipeline.recipe.settings import Settings
from ernie_pipeline.staleness.because import why_to_build
from ernie_pipeline.staleness.chain import Chain, NotThereError, Write
from ernie_pipeline.staleness.plan import make_plan
from ernie_pipeline.staleness.stage import EARLIER_ROUND, Work
from ernie_pipeline.staleness.stages import all_stages, open_chain
from ernie_pipeline.store import aside
from ernie_pipeline.store.artifacts import Artifact, Check, asset_of
from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline.utils.shares import as_shown

OWNERS = ["team:fine-tuning"]
CODE, DATA, INPUT = "dagster/code_version", "dagster/data_version", "dagster/input_data_version/"
"""Dagster's own tags of an event."""


@contextmanager
def pipeline_errors_as_failures() -> Iterator[None]:
    """A `PipelineError` fails the step with its sentence; a retry would meet the same."""
    try:
        yield
    except PipelineError as error:
        raise dg.Failure(description=as_shown(str(error)), allow_retries=False) from None  # the sentence says it


@contextmanager
def told_in_the_run(context: dg.AssetExecutionContext) -> Iterator[None]:
    """What the store sets aside meanwhile is told in the run's log too."""
    handler = _Hand(context)
    aside.log.addHandler(handler)
    try:
        yield
    finally:
        aside.log.removeHandler(handler)


@contextmanager
def lost_meanwhile(context: dg.AssetExecutionContext) -> Iterator[None]:
    """What this very run has built above, and is asked for otherwise now, as after an edit of its code: then the run is
    to be made again, and no other selection."""
    try:
        yield
    except NotThereError as error:
        run, above = context.run, recipe_of(context.asset_key)[0].key(asset_of(error.stage))
        steps = run.step_keys_to_execute
        if (run.asset_selection is None or above in run.asset_selection) and (
            steps is None or "__".join(above.path) in steps
        ):
            raise PipelineError(
                f"{error.stage}, which this run has built or reused, is not what is asked for any more: "
                f"{error.reason}; run it again"
            ) from None
        raise


class _Hand(logging.Handler):
    """Hands a record's sentence on to a run."""

    def __init__(self, context: dg.AssetExecutionContext):
        super().__init__(logging.WARNING)
        self.context = context

    def emit(self, record: logging.LogRecord) -> None:
        self.context.log.warning(record.getMessage())


def build_or_reuse(
    context: dg.AssetExecutionContext,
    write: Write,
    show: Callable[[Artifact], Mapping[str, Any]],
    build_above: Callable[[Chain], None] = lambda chain: None,
    judge: Callable[[Artifact], list[Check]] = lambda artifact: [],
) -> dg.MaterializeResult:
    """The step of a built asset: its artifact from the store or from `write`, reported with what `show` makes of it.

    `build_above` is called first, to build what it reads and what no other asset stands for. `judge`: checks that are
    made of the artifact whenever it is reported, beside those that were made when it was built. Why it is built, or
    that it is reused, is told in the run's log, and so is each check that fails without stopping anything.
    """
    end_with_run()
    with told_in_the_run(context), pipeline_errors_as_failures(), lost_meanwhile(context):
        recipe, name = recipe_of(context.asset_key)
        chain = open_chain(recipe.settings(), run=recipe.in_run(context.run.run_id))
        if name not in chain.stages:
            raise PipelineError(f"the recipe does not ask for {name} any more; reload the code location")
        _refuse_early(context, chain, recipe)
        _log_observations(context, chain, recipe, name)
        build_above(chain)
        building = Building(context, chain, name)
        artifact = chain.reuse_or_build(name, building.told(write), on_wait=context.log.info)
        _say_what_became_of_it(context, name, artifact)
        metadata = {
            **reason(artifact, chain.store, building.why),
            **show(artifact),
            **origin(artifact),
            **building.estimated,
            **spent_metadata(context.run.run_id, artifact, building.price),
        }
        unread, checks = _unread(chain, name), [*artifact.checks, *judge(artifact)]
    warnings = [f"{check.name}: {check.description}" for check in checks if not (check.passed or check.blocking)]
    for words in warnings:
        context.log.warning(f"{name}: the check {words}")
    return dg.MaterializeResult(
        metadata={**({"warning": "; ".join(warnings)} if warnings else {}), **metadata},
        data_version=dg.DataVersion(artifact.data_version),
        tags=version_tags(artifact.manifest, unread, recipe),
        check_results=[_check_result(check) for check in checks],
    )


class Building:
    """A stage of which the step may have to do the work: why that is so, and what it is estimated at, once it has."""

    def __init__(self, context: dg.AssetExecutionContext, chain: Chain, name: str):
        self.context, self.chain, self.name = context, chain, name
        self.price = Budget.from_environment().price
        self.why, self.estimated = "", dict[str, str]()

    def told(self, write: Write) -> Write:
        """`write`, before which the run's log is told."""

        def tell_and_write(work: Work, out: Path) -> Iterable[Check] | None:
            self.why = why_to_build(self.chain, self.name)
            self.context.log.info(f"building {self.name}: {self.why}")
            self.estimated = estimate_metadata(self.chain, self.name, self.price)
            for words in self.estimated.values():
                self.context.log.info(f"estimate: {words}")
            return write(work, out)

        return tell_and_write


def _say_what_became_of_it(context: dg.AssetExecutionContext, name: str, artifact: Artifact) -> None:
    made, place = artifact.manifest, address_of(artifact)
    if artifact.reused:
        context.log.info(f"reused: {name} {made['fingerprint']} from {made['built']}, no work done: {place}")
        return
    context.log.info(f"built: {name} {made['fingerprint']} in {duration(made['seconds'])}: {place}")
    if artifact.note:
        context.log.warning(f"{name} was built again: {artifact.note}")


def settings_for(context: dg.AssetExecutionContext) -> Settings:
    """The environment's, with the recipe of the step's asset. Raises `PipelineError` where it names none."""
    return recipe_of(context.asset_key)[0].settings()


def observation(context: dg.OpExecutionContext) -> dg.ObserveResult:
    """The step of an observed asset: its version now."""
    with pipeline_errors_as_failures():
        recipe, name = recipe_of(context.asset_key)
        chain = open_chain(recipe.settings())
        version = chain.version(name)
        return dg.ObserveResult(data_version=dg.DataVersion(version), metadata=show_source(chain.recipe, name, version))


def _refuse_early(context: dg.AssetExecutionContext, chain: Chain, recipe: RecipeAssets) -> None:
    """Before a run's first work, end it where it is known that it could not do its last. Asked once a run."""
    selected = context.run.asset_selection
    if any(selected is None or recipe.key(name) in selected for name in chain.refused):
        refused = chain.store.pins(recipe.in_run(context.run.run_id)).pin("refused", lambda: make_plan(chain).refused)
        if refused:
            raise PipelineError(refused)


def _log_observations(context: dg.AssetExecutionContext, chain: Chain, recipe: RecipeAssets, name: str) -> None:
    """`dagster asset materialize` does not run observations, so the first reader says what it has seen."""
    for upstream in all_stages(chain.recipe)[name].inputs:
        if upstream in chain.sources:
            context.log_event(observed(chain, recipe, upstream))


def observed(chain: Chain, recipe: RecipeAssets, name: str) -> dg.AssetObservation:
    """The observation of a source as it is now."""
    version = chain.version(name)
    return dg.AssetObservation(
        recipe.key(name), tags={DATA: version}, metadata=show_source(chain.recipe, name, version)
    )


def _unread(chain: Chain, name: str) -> dict[str, str]:
    """The versions of what the asset depends on in Dagster's eyes, and does not read with this recipe."""
    versions: dict[str, str] = {}
    for upstream in all_stages(chain.recipe)[name].inputs:
        if upstream not in chain.stages[name].inputs:
            with suppress(PipelineError):  # it need not be there
                versions[upstream] = chain.version(upstream)
    return versions


def version_tags(made_from: Mapping[str, Any], unread: Mapping[str, str], recipe: RecipeAssets) -> dict[str, str]:
    """Dagster's own tags, by which it marks an asset as stale, from a manifest or a history entry.

    Dagster would fill them with what it knew when the step began. The artifact may be from other code and inputs than
    those, when a file or a module was edited, or a source observed, in between; and Dagster lets a result say so.
    It wants a version of each asset above and of nothing else, read or not; `unread`: of those that are not.
    """
    read = {name: version for name, version in made_from["inputs"].items() if name not in EARLIER_ROUND}
    return {
        CODE: made_from["declared_version"],
        **{f"{INPUT}{recipe.key(name).to_user_string()}": version for name, version in {**read, **unread}.items()},
    }


def _check_result(check: Check) -> dg.AssetCheckResult:
    severity = dg.AssetCheckSeverity.ERROR if check.blocking else dg.AssetCheckSeverity.WARN
    return dg.AssetCheckResult(
        check_name=check.name, passed=check.passed, description=check.description, severity=severity
    )
