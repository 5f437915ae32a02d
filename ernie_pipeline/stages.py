"""The chain in one table: what each asset reads, and so what makes it stale."""

from collections.abc import Mapping

from ernie_pipeline.errors import PipelineError
from ernie_pipeline.recipe import Recipe
from ernie_pipeline.settings import Settings
from ernie_pipeline.store.artifacts import Artifact, ArtifactStore
from ernie_pipeline.store.chain import Chain
from ernie_pipeline.store.stage import Source, Stage

MODEL_LIBRARIES = ("torch", "transformers", "peft", "bitsandbytes")


def _source_version(recipe: Recipe) -> str:
    from ernie_pipeline.data.source import resolve_source

    return resolve_source(recipe.source)


def _base_version(recipe: Recipe) -> str:
    from ernie_pipeline.engines.checkpoint import resolve_checkpoint

    return resolve_checkpoint(recipe.base_model.name, recipe.base_model.revision)


SOURCES: Mapping[str, Source] = {
    "nemotron_source": Source("source", _source_version),
    "base_model": Source("base_model", _base_version),
}

STAGES: Mapping[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage(
            name="raw_nemotron",
            inputs=("nemotron_source",),
            recipe=("source.max_bad_rows", "source.split"),
            code=("ernie_pipeline.data.make_raw",),
            libraries=("polars", "datasets", "reasoning-gym"),
        ),
        Stage(
            name="math_split",
            inputs=("raw_nemotron", "base_model"),
            recipe=("filters", "split"),
            code=("ernie_pipeline.data.make_split", "ernie_pipeline.engines.chat"),
            libraries=("polars", "transformers", "tokenizers"),
        ),
        Stage(
            name="qlora_adapter",
            inputs=("math_split", "base_model"),
            recipe=("quantization", "lora", "training"),
            code=("ernie_pipeline.training.job", "ernie_pipeline.training.train"),
            libraries=(*MODEL_LIBRARIES, "trl", "accelerate"),
        ),
        Stage(
            name="base_evaluation",
            inputs=("math_split", "base_model"),
            recipe=("quantization", "evaluation", "training.engine"),
            code=("ernie_pipeline.evaluation.job", "ernie_pipeline.evaluation.evaluate"),
            libraries=(*MODEL_LIBRARIES, "math-verify"),
        ),
        Stage(
            name="adapter_evaluation",
            inputs=("math_split", "base_model", "qlora_adapter"),
            recipe=("quantization", "lora", "evaluation", "training.engine"),
            code=("ernie_pipeline.evaluation.job", "ernie_pipeline.evaluation.evaluate"),
            libraries=(*MODEL_LIBRARIES, "math-verify"),
        ),
        Stage(
            name="registered_model",
            inputs=("math_split", "base_model", "qlora_adapter", "base_evaluation", "adapter_evaluation"),
            recipe=("gate", "registry", "quantization", "lora", "training.engine", "evaluation.max_new_tokens"),
            code=(
                "ernie_pipeline.registry.request",
                "ernie_pipeline.registry.served_model",
                "ernie_pipeline.evaluation.compare",
            ),
            libraries=("mlflow", *MODEL_LIBRARIES),
            labels=("source",),
        ),
    )
}


def declared_versions(settings: Settings) -> dict[str, str]:
    """Each stage's `Chain.declared_version`, or a word in its place where the recipe cannot be read: a step says why."""
    try:
        chain = open_chain(settings)
    except PipelineError:
        return dict.fromkeys(STAGES, "unreadable recipe")
    return {name: chain.declared_version(name) for name in STAGES}


def open_chain(settings: Settings) -> Chain:
    """The chain of the settings' recipe over their store. Raises `PipelineError` for a recipe that cannot be read."""

    def lost_registration(artifact: Artifact) -> str:
        from ernie_pipeline.registry.lookup import what_is_lost

        registration = artifact.json("registration.json")
        return what_is_lost(settings.tracking_uri, registration["name"], registration["version"])

    return Chain(
        settings.load_recipe(), ArtifactStore(settings.store), STAGES, SOURCES, {"registered_model": lost_registration}
    )
