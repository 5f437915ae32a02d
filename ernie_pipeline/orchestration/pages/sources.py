"""The pages of what is observed: what it is, and at which commit or content."""

from pathlib import Path
from typing import Any

import dagster as dg

from ernie_pipeline.orchestration.links import hub_link
from ernie_pipeline.orchestration.pages.tables import table
from ernie_pipeline.orchestration.words import size
from ernie_pipeline.recipe.sections import Recipe
from ernie_pipeline.staleness.suites import suite_of


def show_source(recipe: Recipe, name: str, version: str) -> dict[str, Any]:
    """What is told of the observed asset `name` at its version now."""
    told = {"nemotron_source": _rows, "base_model": _base, "benchmark_sets": _benchmarks}.get(name)
    return {**(told(recipe, version) if told else _suite(recipe, name, version)), "version": version}


def _rows(recipe: Recipe, version: str) -> dict[str, Any]:
    from ernie_pipeline.data.read.source import describe_source

    source, told = recipe.source, {"what": describe_source(recipe.source)}
    if source.kind == "hub":
        return {**told, "commit": _commit(version), "on the hub": hub_link("dataset", source.dataset, version)}
    return {**told, **(_file(source.path, version) if source.kind == "file" else {})}


def _base(recipe: Recipe, version: str) -> dict[str, Any]:
    base = recipe.base_model
    if version.startswith("commit:"):
        told = f"model {base.name} (revision {base.revision})"
        return {"what": told, "commit": _commit(version), "on the hub": hub_link("model", base.name, version)}
    if base.name == "demo":
        return {"what": "the small model of this package, ernie_pipeline/demo"}
    folder = Path(base.name).expanduser().resolve()
    return {"what": f"checkpoint {folder}", "folder": dg.MetadataValue.path(str(folder))}


def _benchmarks(recipe: Recipe, version: str) -> dict[str, Any]:
    if not recipe.benchmarks.sets:
        return {"what": "no set: the recipe names none in benchmarks.sets"}
    parts = [part.rpartition("=") for part in version.split(", ")]
    sets = table({"set": name, "commit or content": _short(told)} for name, _, told in parts)
    return {"what": ", ".join(recipe.benchmarks.sets), "sets": sets}


def _suite(recipe: Recipe, name: str, version: str) -> dict[str, Any]:
    found = suite_of(name)
    if not found or found[0] not in recipe.suites:
        return {"what": name}
    source = recipe.suites[found[0]].source
    if source.path:
        return {"what": f"file {source.path}", **_file(source.path, version)}
    told = {"what": f"data set {source.dataset} (split {source.split})", "commit": source.commit}
    return {**told, "on the hub": hub_link("dataset", source.dataset, source.commit)}


def _file(path: str, version: str) -> dict[str, Any]:
    file = Path(path).expanduser().absolute()
    return {"file": dg.MetadataValue.path(str(file)), "size": size(file.stat().st_size), **_content(version)}


def _content(version: str) -> dict[str, str]:
    return {"content (SHA-256)": version.partition(":")[2]} if version.startswith("sha256:") else {}


def _commit(version: str) -> str:
    return version.partition(":")[2]


def _short(version: str) -> str:
    kind, _, digits = version.rpartition(":")
    return f"{kind} {digits[:12]}".strip()
