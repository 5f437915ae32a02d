"""What came of a run, for whoever waited for it: rows, loss, accuracy, gate, how to ask the model, where to look."""

import shlex
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from ernie_pipeline.cli.settings_options import with_options, with_variables
from ernie_pipeline.recipe.settings import Settings
from ernie_pipeline.registry.mlflow_pages import how_to_look, page
from ernie_pipeline.staleness.plan import RefreshPlan
from ernie_pipeline.staleness.suites import COMPARISON, suite_asset, suites_among
from ernie_pipeline.store.artifacts import ArtifactStore
from ernie_pipeline.store.readable import NOT_READABLE, read_json
from ernie_pipeline.utils.address import public_uri
from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline.utils.shares import between, percent, points, points_between

REGISTERED = ("name", "version", "model_uri", "aliases", "promoted", "reasons")
"""What a program is told of a registration."""


def summary(settings: Settings, plan: RefreshPlan, dagster_home: str | None) -> str:
    """The lines, of what stands of the plan; what an artifact does not say is left out."""
    files = _Files(settings, plan)
    rows = [(name, words) for name, words in _lines(files, _registered(settings, files)) if words]
    rows += _where(settings, dagster_home)
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {words}" for name, words in rows)


def summary_values(settings: Settings, plan: RefreshPlan) -> dict[str, Any]:
    """The same as values, for programs: None for what does not stand."""
    files = _Files(settings, plan)
    profile = files.read("math_split", "reports/profile.json")
    suites = {name: files.read(suite_asset(name, COMPARISON), "comparison.json") for name in suites_among(files.wanted)}
    made = _registered(settings, files)
    return {
        "rows": profile and profile["places"],
        "base": files.read("base_evaluation", "metrics.json"),
        "adapter": files.read("adapter_evaluation", "metrics.json"),
        "comparison": files.read("registered_model", "comparison.json"),
        "suites": {name: compared["figures"] for name, compared in suites.items() if compared},
        "registered": made and {**{key: made.get(key) for key in REGISTERED}, **_in_mlflow(settings, made)},
    }


def _registered(settings: Settings, files: "_Files") -> Any:
    """What the registration says, with the aliases that its version has now: `promote` and `rollback` move them."""
    from ernie_pipeline.registry.lookup import aliases_now

    made = files.read("registered_model", "registration.json")
    with suppress(PipelineError):
        now = made and aliases_now(settings.tracking_uri, made["name"], str(made["version"]))
        return made if now is None else {**made, "aliases": now}
    return made


def _in_mlflow(settings: Settings, made: dict[str, Any]) -> dict[str, str | None]:
    """The page of the adapter's run, and the command that shows it where MLflow's database is a file."""
    run = f"experiments/{made.get('experiment_id')}/runs/{made.get('run_id')}"
    look = how_to_look(public_uri(settings.tracking_uri)) or None
    return {"run_url": f"{settings.mlflow_ui.rstrip('/')}/{page(run)}", "how_to_look": look}


class _Files:
    """JSON files of the artifacts that the plan asks for."""

    def __init__(self, settings: Settings, plan: RefreshPlan):
        self.store = ArtifactStore(settings.store)
        self.wanted = {a.asset: a.fingerprint for a in plan.assets if a.state == "fresh" and a.fingerprint}

    def read(self, stage: str, file: str) -> Any:
        """What the file says; None where there is none."""
        if stage in self.wanted:
            with suppress(*NOT_READABLE):
                return read_json(self.store.root / stage / str(self.wanted[stage]) / file)
        return None


def _lines(files: _Files, made: Any) -> Iterator[tuple[str, str]]:
    if profile := files.read("math_split", "reports/profile.json"):
        places = profile["places"]
        yield (
            "rows",
            (
                f"{places.get('train', 0):,} to train, {places.get('evaluation', 0):,} held out, "
                f"{places.get('dropped', 0):,} dropped"
            ),
        )
    solutions = files.read("verified_solutions", "metrics.json")
    if solutions and "pass_rate" in solutions:
        yield (
            "solutions",
            f"{solutions['kept']:,} kept; {solutions['solved']:,} of {solutions['problems']:,} problems solved",
        )
    if curve := files.read("qlora_adapter", "curve.json"):
        yield "loss", _loss(curve)
    before, after = (files.read(f"{side}_evaluation", "metrics.json") for side in ("base", "adapter"))
    if before and after:
        yield "accuracy", f"{_share(before)} before, {_share(after)} after"
    if compared := files.read("registered_model", "comparison.json"):
        interval = points_between(compared["gain_low"], compared["gain_high"])
        yield "gain", f"{points(compared['gain'])} (95 % interval {interval}), p = {compared['p_value']:.2g}"
    for suite in suites_among(files.wanted):
        if compared := files.read(suite_asset(suite, COMPARISON), "comparison.json"):
            yield f"on {suite}", _suite(compared)
    if made:
        yield from _model(made)


def _model(made: dict[str, Any]) -> Iterator[tuple[str, str]]:
    aliases = f" ({', '.join(made['aliases'])})" if made.get("aliases") else ""
    yield "model", f"{made['name']} {made['version']}{aliases}"
    promoted = made.get("promoted", True)
    yield "gate", "passed" if promoted else f"not passed: {' '.join(made['reasons'])}"
    champion = "champion" in made.get("aliases", ["champion"] if promoted else [])
    if not promoted:
        command = with_options(f"ernie promote {made['version']}")
        yield "", "made the champion all the same" if champion else f'to make it the champion all the same: "{command}"'
    named = "" if champion else f" --model {shlex.quote(made['model_uri'])}"
    yield "ask it", with_options(f'ernie ask "Solve for x: 2*x + 3 = 7"{named}')


def _suite(compared: dict[str, Any]) -> str:
    greedy = next(each for each in compared["figures"] if each["figure"] == "greedy")
    gain = f"{points(greedy['gain'])} (95 % interval {points_between(greedy['low'], greedy['high'])})"
    return f"{percent(greedy['base'])} before, {percent(greedy['adapter'])} after, greedily: {gain}"


def _share(metrics: dict[str, Any]) -> str:
    return f"{percent(metrics['accuracy'])} ({between(metrics['accuracy_low'], metrics['accuracy_high'])})"


def _loss(curve: list[dict[str, float]]) -> str:
    told = []
    for key, name in (("loss", "training"), ("loss_objective", "validation"), ("reward", "reward")):
        if values := [entry[key] for entry in curve if key in entry]:
            told.append(f"{name} {values[0]:.3g} -> {values[-1]:.3g}" if len(values) > 1 else f"{name} {values[0]:.3g}")
    return ", ".join(told)


def _where(settings: Settings, dagster_home: str | None) -> list[tuple[str, str]]:
    instance = f"DAGSTER_HOME={shlex.quote(dagster_home)} " if dagster_home else ""
    address = public_uri(settings.tracking_uri)
    return [
        ("Dagster", with_variables(f"{instance}dagster dev -m ernie_pipeline.definitions")),
        ("MLflow", how_to_look(address) or address),
        ("folders", f"{settings.address or settings.store}"),
    ]
