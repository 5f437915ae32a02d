"""From a recipe to every stage's fingerprint and artifact: the walk that decides what is reused.

A fingerprint needs nothing but the recipe, the code, the observed versions and the store; so it is the same from
Dagster's UI, a schedule or the command line, and with an instance that was born a second ago.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ernie_pipeline.errors import PipelineError
from ernie_pipeline.recipe import Recipe
from ernie_pipeline.store.artifacts import Artifact, ArtifactStore, Provenance
from ernie_pipeline.store.code import code_version
from ernie_pipeline.store.stage import Stage


class Chain:
    """One recipe's stages over one store.

    `observe` gives the version of an observed asset by its name; it is asked once per asset.
    """

    def __init__(
        self,
        recipe: Recipe,
        store: ArtifactStore,
        stages: Mapping[str, Stage],
        observe: Mapping[str, Callable[[Recipe], str]],
    ):
        self.recipe, self.store, self.stages, self._observe = recipe, store, stages, observe
        self._versions: dict[str, str] = {}
        self._artifacts: dict[str, Artifact] = {}

    def version(self, name: str) -> str:
        """The data version of an input: observed, or of the artifact that the recipe asks for.

        Raises `PipelineError` for a stage whose artifact is not there.
        """
        if name not in self._versions:
            is_observed = name in self._observe
            self._versions[name] = self._observe[name](self.recipe) if is_observed else self.artifact(name).data_version
        return self._versions[name]

    def provenance(self, name: str) -> Provenance:
        """All that the stage's output depends on, and its hash, the fingerprint."""
        stage = self.stages[name]
        inputs = {upstream: self.version(upstream) for upstream in stage.inputs}
        code = code_version(stage.code, stage.libraries)
        recipe = {path: _section(self.recipe, path) for path in stage.recipe}
        covered = json.dumps([stage.name, code, inputs, recipe], sort_keys=True)
        return Provenance(
            stage=stage.name,
            fingerprint=hashlib.sha256(covered.encode()).hexdigest()[:16],
            code_version=code,
            inputs=inputs,
            recipe=recipe,
            libraries={library: version(library) for library in stage.libraries},
        )

    def artifact(self, name: str) -> Artifact:
        """The intact artifact of a stage. Raises `PipelineError` when it has to be built first."""
        if name not in self._artifacts:
            found, reason = self.store.find(name, self.provenance(name).fingerprint)
            if found is None:
                raise PipelineError(f'{name} for this recipe: {reason}; materialize it first (select "+{name}")')
            self._artifacts[name] = found
        return self._artifacts[name]

    def reuse_or_build(
        self, name: str, write: Callable[[Path], None], still_holds: Callable[[Artifact], bool] = lambda _: True
    ) -> Artifact:
        """The stage's artifact: the intact one from the store, or the one that `write` makes.

        `still_holds` may refuse a found artifact whose effect elsewhere is gone, such as a registered model.
        """
        made_from = self.provenance(name)
        found, reason = self.store.find(name, made_from.fingerprint)
        if found is not None and not still_holds(found):
            found, reason = None, "what it stands for is gone"
        artifact = found or self.store.build(made_from, write, note=reason)
        self._artifacts[name] = artifact
        self._versions[name] = artifact.data_version
        return artifact


def _section(recipe: Recipe, path: str) -> Any:
    value: Any = recipe
    for part in path.split("."):
        value = getattr(value, part)
    return value.model_dump(mode="json") if hasattr(value, "model_dump") else value
