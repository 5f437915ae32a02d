"""A suite's figures into MLflow, whichever comes first: the suite's comparison, or the version that it is of.

Each looks for the other once it is itself in the store, so of two at once at least one finds the other.
"""

from collections.abc import Callable
from contextlib import suppress

from ernie_pipeline.evaluation.suites.figures import suite_figures
from ernie_pipeline.recipe.settings import Settings
from ernie_pipeline.registry.suite_figures import Measured, log_measured
from ernie_pipeline.registry.tracking import IMPATIENT, connected
from ernie_pipeline.staleness.chain import Chain
from ernie_pipeline.staleness.suites import ADAPTER, BASE, COMPARISON, suite_asset
from ernie_pipeline.store.artifacts import Artifact, ArtifactStore
from ernie_pipeline.store.history import builds
from ernie_pipeline.store.readable import NOT_READABLE
from ernie_pipeline.store.shared.settled import open_store
from ernie_pipeline.utils.errors import PipelineError

REGISTERED = "registered_model"
Warn = Callable[[str], None]


def log_suite(settings: Settings, name: str, comparison: Artifact, warn: Warn) -> None:
    """Log the figures of a suite that was compared to the version of its adapter that was registered last, if any."""
    store = open_store(settings, for_run=True)
    asset = suite_asset(name, ADAPTER)
    answers = _with_version(store, asset, comparison.manifest["inputs"][asset])
    if answers is None:
        return
    adapter = answers.manifest["inputs"]["qlora_adapter"]
    for build in reversed(builds(store, REGISTERED)):
        registered, _ = store.find(REGISTERED, build["fingerprint"])
        if registered and registered.manifest["inputs"]["qlora_adapter"] == adapter:
            _log(store, settings, registered, {name: comparison}, warn)
            return


def log_suites(settings: Settings, chain: Chain, registered: Artifact, warn: Warn) -> None:
    """Log the figures of the suites that the chain's recipe names to what is registered now, if they were compared as
    the recipe has them: what a set held before is another set by the same name."""
    found: dict[str, Artifact] = {}
    for name in chain.recipe.suites:
        with suppress(PipelineError):  # it is not built yet
            found[name] = chain.artifact(suite_asset(name, COMPARISON))
    if found:
        _log(chain.store, settings, registered, found, warn)


def _log(
    store: ArtifactStore, settings: Settings, registered: Artifact, suites: dict[str, Artifact], warn: Warn
) -> None:
    try:
        run_id = str(registered.json("registration.json")["run_id"])
        measured = [_measured(store, name, comparison) for name, comparison in suites.items()]
        with (
            store.sole_builder(REGISTERED, "suites", lambda _: None),
            connected(settings.tracking_uri, IMPATIENT) as client,
        ):
            for each in measured:
                log_measured(client, run_id, each)
    except (PipelineError, *NOT_READABLE) as error:
        warn(f"the figures of {', '.join(suites)} are not in MLflow: {error}; the next reuse of the suite logs them")


def _measured(store: ArtifactStore, name: str, comparison: Artifact) -> dict[str, Measured]:
    measured = {}
    for side, part in (("base", BASE), ("adapter", ADAPTER)):
        asset = suite_asset(name, part)
        version = comparison.manifest["inputs"][asset]
        if answers := _with_version(store, asset, version):
            measured[side] = Measured(asset, version, suite_figures(name, answers.json("metrics.json")))
    return measured


def _with_version(store: ArtifactStore, asset: str, data_version: str) -> Artifact | None:
    """An intact artifact with that data version."""
    for build in reversed(builds(store, asset)):
        if build["data_version"] == data_version:
            artifact, _ = store.find(asset, build["fingerprint"])
            if artifact and artifact.data_version == data_version:
                return artifact
    return None
