"""From a recipe to every stage's fingerprint and artifact: the walk that decides what is reused.

A fingerprint needs nothing but the recipe, the code, the observed versions and the store; so it is the same from
Dagster's UI, a schedule or the command line, and with an instance that was born a second ago.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ernie_pipeline.recipe.sections import Recipe
from ernie_pipeline.staleness.code import Code, read_code, read_module, short_hash
from ernie_pipeline.staleness.cost import measured_cost
from ernie_pipeline.staleness.elsewhere import Lost, Refused, Told
from ernie_pipeline.staleness.reasons import differences, nearest
from ernie_pipeline.staleness.stage import EARLIER_ROUND, DeclaredRecipe, ObservedSource, Stage, Work, section
from ernie_pipeline.store.artifacts import NOT_BUILT, Artifact, ArtifactStore, Check, Provenance, asset_of
from ernie_pipeline.store.history import builds, remember
from ernie_pipeline.store.row_cache import FOLDER, KeptRows
from ernie_pipeline.utils.errors import PipelineError

Write = Callable[[Work, Path], Iterable[Check] | None]
"""A stage's work: fill the folder, and say what its checks found."""


class NotThereError(PipelineError):
    """An artifact that another stage reads is not there; the sentence says how to build all that `wanted_by` needs."""

    def __init__(self, stage: str, reason: str, wanted_by: str):
        super().__init__(
            f"{stage} for this recipe: {reason}; build it, and whatever else is missing, with "
            f'--select "*{wanted_by}" ("python -m ernie_pipeline plan" says what is stale, and why)'
        )
        self.stage, self.reason = stage, reason


class Chain:
    """One recipe's stages over one store.

    A source is asked for its version once. `lost` is for stages whose artifact speaks of something outside the store.
    `refused` is for those whose work may be turned down elsewhere, `told` for those of whose effect there may be
    something to know while nothing is to be built.
    `earlier`: the chain of the round before, over the same store, of which `EARLIER_ROUND` names what is read.
    """

    def __init__(
        self,
        recipe: Recipe,
        store: ArtifactStore,
        stages: Mapping[str, Stage],
        sources: Mapping[str, ObservedSource],
        lost: Mapping[str, Lost] | None = None,
        earlier: "Chain | None" = None,
    ):
        self.recipe, self.store, self.stages, self.sources = recipe, store, stages, sources
        self.earlier, self._lost = earlier, lost or {}
        self.refused: dict[str, Refused] = {}
        self.told: dict[str, Told] = {}
        self._versions: dict[str, str] = {}
        self._artifacts: dict[str, Artifact] = {}
        self._found: dict[tuple[str, str], Artifact] = {}
        self._code: dict[str, Code] = {}
        self._version_of, self._module_of = cache(version), cache(read_module)

    def rounds(self) -> "Iterator[Chain]":
        """This chain and those of the rounds before it."""
        chain: Chain | None = self
        while chain:
            yield chain
            chain = chain.earlier

    def version(self, name: str) -> str:
        """The data version of an input: observed, or of the artifact that the recipe asks for.

        Raises `NotThereError` for a stage whose artifact is not there.
        """
        if name not in self._versions:
            source = self.sources.get(name)
            self._versions[name] = source.version(self.recipe) if source else self.artifact(name).data_version
        return self._versions[name]

    def declared_version(self, name: str) -> str:
        """A hash of what decides the stage's output besides its inputs: code, libraries and declared recipe keys."""
        return short_hash([name, self._code_of(name).version, self._declared_recipe(name)])

    def provenance(self, name: str, assumed: Mapping[str, str] | None = None) -> Provenance:
        """All that the stage's output depends on, and its hash, the fingerprint.

        `assumed` has versions of inputs that are not built now, to tell what would follow from them.
        """
        inputs = {u: (assumed or {}).get(u) or self.version(u) for u in self.stages[name].inputs}
        declared, code = self.declared_version(name), self._code_of(name)
        return Provenance(
            stage=name,
            fingerprint=short_hash([declared, inputs]),
            declared_version=declared,
            inputs=inputs,
            recipe=self._declared_recipe(name),
            modules=code.modules,
            libraries=code.libraries,
        )

    def artifact(self, name: str) -> Artifact:
        """The intact artifact of a stage, fit for the stages below, or of what `EARLIER_ROUND` names.

        Raises `NotThereError` when there is none.
        """
        if name in EARLIER_ROUND and self.earlier:
            return self._of_earlier_round(self.earlier, name)
        if name not in self._artifacts:
            wanted = self.provenance(name)
            found, reason = self._verified(name, wanted.fingerprint)
            if found is None:
                last = nearest(wanted, builds(self.store, name))
                if reason == NOT_BUILT and last and (changes := differences(wanted, last)):
                    reason = f"{reason} ({'; '.join(changes)})"
                raise NotThereError(name, reason, wanted_by=name)
            if found.failed_check:
                raise PipelineError(f"{name} is not fit for use: {found.failed_check}")
            self._artifacts[name] = found
        return self._artifacts[name]

    def _of_earlier_round(self, earlier: "Chain", name: str) -> Artifact:
        try:
            return earlier.artifact(asset_of(name))
        except NotThereError as error:
            round_ = earlier.recipe.solutions.rounds
            raise NotThereError(f"{error.stage} of round {round_}", error.reason, wanted_by=asset_of(name)) from None

    def reuse_or_build(
        self,
        name: str,
        write: Write,
        on_wait: Callable[[str], None] = lambda _: None,
    ) -> Artifact:
        """The stage's artifact: the intact one from the store, or the one that `write` makes.

        While another process builds the same one, this one tells `on_wait` and waits for it.
        """
        try:
            made_from = self.provenance(name)
        except NotThereError as error:  # of it alone there may be more than one, one above the other
            raise NotThereError(error.stage, error.reason, wanted_by=name) from None
        artifact, reason = self.find(made_from)
        if artifact is None:
            with self.store.sole_builder(name, made_from.fingerprint, on_wait):
                artifact, reason = self.find(made_from)  # the one that held the lock may have built it
                if artifact is None:
                    artifact = self._build(made_from, write, reason)
        if not artifact.failed_check:
            self._artifacts[name], self._versions[name] = artifact, artifact.data_version
        return artifact

    def find(self, made_from: Provenance) -> tuple[Artifact | None, str]:
        """The intact artifact that may be reused, or None and the reason, see `ArtifactStore.find`."""
        found, reason = self._verified(made_from.stage, made_from.fingerprint)
        lost = self._lost.get(made_from.stage)
        if found is not None and lost is not None and (reason := lost(found)):
            del self._found[made_from.stage, made_from.fingerprint]  # whoever builds it anew makes another artifact
            return None, reason
        return found, reason

    def rows(self, name: str) -> KeptRows | None:
        """Where the stage's rows are kept, None for one that does not work by row.

        Raises `NotThereError` for a stage above whose artifact is not there.
        """
        by_row = self.stages[name].by_row
        if by_row is None:
            return None
        made_from = {
            "inputs": {upstream: self.version(upstream) for upstream in by_row.inputs},
            "recipe": {path: section(self.recipe, path) for path in by_row.recipe},
        }
        code = read_code(by_row.code, by_row.libraries, self._version_of, self._module_of)
        key = short_hash([made_from, code.version])
        return KeptRows(folder=self.store.root / FOLDER / key, about={**made_from, "libraries": {**code.libraries}})

    def _verified(self, stage: str, fingerprint: str) -> tuple[Artifact | None, str]:
        """`ArtifactStore.find`, once for each artifact that is intact: to hash gigabytes takes seconds."""
        if (stage, fingerprint) not in self._found:
            found, reason = self.store.find(stage, fingerprint)
            if found is None:
                return None, reason
            self._found[stage, fingerprint] = found
        return self._found[stage, fingerprint], ""

    def _build(self, made_from: Provenance, write: Write, reason: str) -> Artifact:
        stage = self.stages[made_from.stage]
        covered = {self.sources[i].section for i in stage.inputs if i in self.sources}
        declared = frozenset({*stage.recipe, *stage.labels, *covered})
        work = Work(
            recipe=DeclaredRecipe(self.recipe, declared, stage.name),
            made_from=made_from,
            artifacts={name: self.artifact(name) for name in stage.inputs if name not in self.sources},
            unfinished=self.store.unfinished(made_from.stage, made_from.fingerprint),
            rows=self.rows(made_from.stage),
        )
        with self.store.carried(made_from.stage, made_from.fingerprint, work.rows.folder if work.rows else None):
            artifact = self.store.build(
                made_from,
                lambda out: write(work, out),
                note="" if reason == NOT_BUILT else reason,
                cost=lambda out: measured_cost(out, work.unfinished),
            )
        if not artifact.reused:  # by another machine that was faster
            remember(self.store, artifact.manifest)
        with suppress(OSError):  # the artifact stands; what cannot be removed is left to `store prune`
            self.store.forget_unfinished(made_from.stage, made_from.fingerprint)
        return artifact

    def _code_of(self, name: str) -> Code:
        if name not in self._code:
            stage = self.stages[name]
            self._code[name] = read_code(stage.code, stage.libraries, self._version_of, self._module_of)
        return self._code[name]

    def _declared_recipe(self, name: str) -> dict[str, Any]:
        return {path: section(self.recipe, path) for path in self.stages[name].recipe}
