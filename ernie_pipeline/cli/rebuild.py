"""The chain of a registered model, built once more from its recorded recipe in a home that is thrown away."""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ernie_pipeline.cli.materialize import materialize
from ernie_pipeline.recipe.as_toml import as_toml
from ernie_pipeline.recipe.load import parse_recipe
from ernie_pipeline.recipe.sections import Recipe, Registry
from ernie_pipeline.recipe.settings import Settings
from ernie_pipeline.registry.lineage import Link
from ernie_pipeline.registry.verification.step import Step, differs, passed, unchecked
from ernie_pipeline.staleness.stages import SOURCES, STAGES
from ernie_pipeline.store.artifacts import Artifact, ArtifactStore, asset_of
from ernie_pipeline.store.history import builds
from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline.utils.shares import percent

ALL = "rebuild"
NOT_REBUILT = ("registered_model",)
"""A registration has a number and a time of its own: what it registers is the artifacts, which are compared."""
NOT_ITS_OWN = ("publish", "suites")
"""Tables of which no registered model is made; and nothing of a rebuild goes anywhere."""
ELSEWHERE = ("DAGSTER_HOME", "ERNIE_PIPELINE_SOURCE", "MLFLOW_TRACKING_URI")
"""What of the environment is not for a rebuild: no instance of Dagster hears of its runs, and no registry."""
ONE_BY_ONE: dict[str, Any] = {"execution": {"config": {"in_process": {}}}}
"""Without an instance there is no pool that keeps two steps from one GPU."""
FAILURE = re.compile(r"dagster\._core\.definitions\.events\.Failure: (.*)")
LOSS_TOLERANCE, RATE_TOLERANCE = 0.05, 0.05
"""How far a loss (relative) and a share of right answers (absolute) may be from the recorded ones on another device."""


def rebuild(settings: Settings, links: list[Link]) -> Iterator[Step]:
    """Build the chain's recorded recipe from the sources of today, and compare each artifact with the recorded one.

    On a CPU like the one that built it the bytes must be the same; elsewhere the figures must be near.
    """
    try:
        recipe = recorded_recipe(settings, links)
    except PipelineError as error:
        yield unchecked(ALL, str(error))
        return
    with TemporaryDirectory(prefix="ernie_pipeline_rebuild_") as scratch:
        home = Path(scratch, "home")
        if problem := _build(recipe, Path(scratch), home):
            yield unchecked(ALL, f"the recorded recipe could not be built here: {problem}")
            return
        store = ArtifactStore(replace(settings, home=home, address=None).store)
        yield from (_compared(store, link) for link in links if asset_of(link.name) in STAGES)


def recorded_recipe(settings: Settings, links: list[Link]) -> Recipe:
    """The keys that the artifacts were built with, over the recipe of today for what is recorded by its content alone.

    Raises `PipelineError` where that names a source, base model or benchmark set of another content.
    """
    table: dict[str, Any] = settings.load_recipe().model_dump(mode="json", exclude_none=True)
    for name in NOT_ITS_OWN:
        table.pop(name, None)
    recorded = {key: value for link in links if link.made and " " not in link.name for key, value in _keys(link)}
    for key, value in recorded.items():
        *sections, name = key.split(".")
        inner = table
        for section in sections:
            inner = inner.setdefault(section, {})
        inner[name] = value
    recipe = parse_recipe(table, where="the recorded recipe")
    for link in links:
        if link.name in SOURCES and (now := SOURCES[link.name].version(recipe)) != link.version:
            raise PipelineError(
                f"the model was made from {link.name} {link.version}, and the recipe here names {now}; set "
                "ERNIE_PIPELINE_RECIPE and ERNIE_PIPELINE_SOURCE to what it was made from"
            )
    return recipe


def _keys(link: Link) -> list[tuple[str, Any]]:
    assert link.made, "asked of links that were made"
    return list(link.made["recipe"].items())


def _build(recipe: Recipe, scratch: Path, home: Path) -> str:
    """Let Dagster build all but the registration; "" or why it could not."""
    file = scratch / "recipe.toml"
    unnamed = recipe.model_copy(update={"registry": Registry(model_name="rebuilt")})  # nothing is registered
    file.write_text(as_toml(unnamed), encoding="utf-8")
    kept = {name: value for name, value in os.environ.items() if name not in ELSEWHERE}
    ended = materialize(
        [name for name in STAGES if name not in NOT_REBUILT],
        {**kept, "ERNIE_PIPELINE_HOME": str(home), "ERNIE_PIPELINE_RECIPE": str(file)},
        *("--config-json", json.dumps(ONE_BY_ONE)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        errors="replace",
    )
    if ended.returncode == 0:
        return ""
    said = FAILURE.search(ended.stdout)
    return said[1] if said else (ended.stdout.strip().splitlines() or ["Dagster said nothing"])[-1][:500]


def _compared(store: ArtifactStore, link: Link) -> Step:
    name, stage = f"rebuild {link.name}", asset_of(link.name)
    made = [store.find(stage, build["fingerprint"])[0] for build in reversed(builds(store, stage))]
    found = [artifact for artifact in made if artifact]
    if not found:
        return unchecked(name, "it was not built")
    if any(artifact.data_version == link.version for artifact in found):
        return passed(name, f"{link.version}: the same bytes")
    if link.artifact is None:
        return unchecked(name, "the recorded artifact is not there to be compared with")
    new = _nearest(found, link)
    then, now = _device(link.artifact), _device(new)
    said = f"{link.version} was recorded, and {new.data_version} was built"
    if now == then and (then is None or then.startswith("CPU")):
        return differs(name, said)
    near, figures = _figures(stage, link.artifact, new)
    said = f"{said} on {now} (recorded on {then}): {figures}"
    return passed(name, said) if near else differs(name, said)


def _nearest(found: list[Artifact], link: Link) -> Artifact:
    """Of several rounds' artifacts the one that was built by the same keys of the recipe."""
    assert link.made, "an artifact was made"
    return next((each for each in found if each.manifest["recipe"] == link.made["recipe"]), found[0])


def _device(artifact: Artifact) -> str | None:
    file = artifact.folder / "reports" / "run.json"
    return str(json.loads(file.read_text(encoding="utf-8")).get("device")) if file.is_file() else None


def _figures(stage: str, then: Artifact, now: Artifact) -> tuple[bool, str]:
    """Whether the figures of two artifacts on different devices are near each other, and what they are."""
    if stage == "qlora_adapter":
        before, after = (_last_loss(artifact) for artifact in (then, now))
        return abs(after - before) <= LOSS_TOLERANCE * abs(before), f"last training loss {before:.4f}, now {after:.4f}"
    key = {"verified_solutions": "pass_rate"}.get(stage, "accuracy")
    before, after = (float(artifact.json("metrics.json")[key]) for artifact in (then, now))
    return abs(after - before) <= RATE_TOLERANCE, f"{key.replace('_', ' ')} {percent(before)}, now {percent(after)}"


def _last_loss(artifact: Artifact) -> float:
    losses = [entry["loss"] for entry in artifact.json("curve.json") if "loss" in entry]
    return float(losses[-1])
