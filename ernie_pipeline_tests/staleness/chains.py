"""The real stages with other work: each writes a line of text, so that a chain takes milliseconds."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ernie_pipeline.recipe.load import parse_recipe
from ernie_pipeline.recipe.sections import Recipe
from ernie_pipeline.staleness.chain import Chain, Lost, Write
from ernie_pipeline.staleness.stage import ObservedSource, Stage, Work
from ernie_pipeline.staleness.stages import all_sources, chain_of_rounds
from ernie_pipeline.store.artifacts import Artifact, ArtifactStore, Check

OBSERVED = {"nemotron_source": "sha256:5000", "base_model": "sha256:e41e", "benchmark_sets": "none"}


def writes(text: str, checks: Iterable[Check] = ()) -> Write:
    """A stage's work: one file with `text`, the same whatever the inputs are."""

    def write(work: Work, out: Path) -> Iterable[Check]:
        (out / "output.json").write_text(text)
        return checks

    return write


constant = writes("1")


def recipe_with(**sections: dict[str, Any]) -> Recipe:
    """The default recipe with some keys changed."""
    return parse_recipe(sections, where="test")


def chain_of(
    store: ArtifactStore,
    recipe: Recipe | None = None,
    *,
    lost: Mapping[str, Lost] | None = None,
    stages: Mapping[str, Stage] | None = None,
    **observed: str,
) -> Chain:
    """A chain whose sources have the versions `observed`, by default `OBSERVED`, and "sha256:50e7" of a suite's set."""
    recipe = recipe or Recipe()
    known = all_sources(recipe)
    versions = dict.fromkeys(known, "sha256:50e7") | OBSERVED | observed
    sources = {name: ObservedSource(known[name].section, lambda _, v=version: v) for name, version in versions.items()}
    return Chain(recipe, store, stages, sources, lost) if stages else chain_of_rounds(recipe, store, sources, lost)


def walk(chain: Chain, **write: Write) -> dict[str, Artifact]:
    """Every stage reused or built in order, each by its own function in `write` or by `constant`."""
    return {name: chain.reuse_or_build(name, write.get(name, constant)) for name in chain.stages}


def built(artifacts: Mapping[str, Artifact]) -> list[str]:
    """The stages that did their work."""
    return [name for name, artifact in artifacts.items() if not artifact.reused]


def tree(root: Path) -> dict[str, bytes | None]:
    """Every path below `root` with its bytes, None for a folder: to tell that nothing was changed."""
    paths = sorted(root.rglob("*"))
    return {str(path.relative_to(root)): path.read_bytes() if path.is_file() else None for path in paths}
