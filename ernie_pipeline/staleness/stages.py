"""The chain in one table: what each asset reads, and so what makes it stale."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

from ernie_pipeline.grading import LIBRARIES as GRADING_LIBRARIES
from ernie_pipeline.recipe import signing
from ernie_pipeline.recipe.sections import Recipe
from ernie_pipeline.recipe.settings import Settings
from ernie_pipeline.staleness.chain import Chain
from ernie_pipeline.staleness.elsewhere import (
    Lost,
    lost_publication,
    lost_registration,
    publication_refused,
    publication_told,
    registration_refused,
    rows_refused,
)
from ernie_pipeline.staleness.published import PUBLISHED, published_stages
from ernie_pipeline.staleness.stage import EARLIER_ADAPTER, EARLIER_ROUND, ByRow, ObservedSource, Stage
from ernie_pipeline.staleness.suites import suite_sources, suite_stages
from ernie_pipeline.store.artifacts import ArtifactStore
from ernie_pipeline.store.hashing.hash_cache import remembered_sha256
from ernie_pipeline.store.pins import Pins
from ernie_pipeline.store.quantized_base import MadeOf, made_of
from ernie_pipeline.store.shared.settled import open_store
from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline.utils.math_verify import LIBRARIES as PARSING_LIBRARIES

MODEL_LIBRARIES = ("torch", "transformers", "peft", "bitsandbytes")
BACKEND_LIBRARIES: Mapping[str, tuple[str, ...]] = {"unsloth": ("unsloth", "unsloth_zoo")}
"""What decides, with some backends, how the base is quantized and computed beyond `MODEL_LIBRARIES`."""


def _source_version(recipe: Recipe) -> str:
    from ernie_pipeline.data.read.source import resolve_source

    return resolve_source(recipe.source)


def _base_version(recipe: Recipe) -> str:
    from ernie_pipeline.models.checkpoint.version import resolve_checkpoint

    return resolve_checkpoint(recipe.base_model.name, recipe.base_model.revision, remembered_sha256)


def _benchmarks_version(recipe: Recipe) -> str:
    if not recipe.benchmarks.sets:
        return "none"  # said without the second that its imports take
    from ernie_pipeline.data.read.benchmark_sets import resolve_benchmarks

    return resolve_benchmarks(recipe.benchmarks.sets)


COLUMN_KEYS = ("source.question", "source.answer", "source.messages", "source.extract", "source.instruction")

SOURCES: Mapping[str, ObservedSource] = {
    "nemotron_source": ObservedSource("source", _source_version),
    "base_model": ObservedSource("base_model", _base_version),
    "benchmark_sets": ObservedSource("benchmarks", _benchmarks_version),
}

ANSWERS_BY_ROW = ByRow(
    inputs=("base_model",),
    recipe=("quantization", "evaluation.max_new_tokens", "training.backend", "execution.generator"),
    code=("ernie_pipeline.models", "ernie_pipeline.models.generation.kept"),
    libraries=MODEL_LIBRARIES,
)
"""The base model's greedy answers."""

STAGES: Mapping[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage(
            name="raw_nemotron",
            inputs=("nemotron_source",),
            recipe=("source.max_bad_rows", "source.split"),
            code=("ernie_pipeline.data.make_raw",),
            libraries=("polars", "pyarrow", "msgspec", "dataframely", "datasets", "reasoning-gym"),
        ),
        Stage(
            name="math_split",
            inputs=("raw_nemotron", "base_model", "benchmark_sets"),
            recipe=("filters", "near_duplicates", "decontamination", "split"),
            code=("ernie_pipeline.data.job",),
            libraries=(
                "polars",
                "pyarrow",
                "numpy",
                "scipy",
                "rensa",
                "py3langid",
                "transformers",
                "tokenizers",
                "jinja2",
                *PARSING_LIBRARIES,
            ),
        ),
        Stage(
            name="verified_solutions",
            inputs=("math_split", "base_model"),
            recipe=("quantization", "solutions", "training.backend", "training.on", "execution.generator"),
            code=("ernie_pipeline.solutions.job", "ernie_pipeline.solutions.make_solutions"),
            labels=("execution",),
            libraries=(*MODEL_LIBRARIES, *GRADING_LIBRARIES),
            by_row=ByRow(
                inputs=("base_model",),
                recipe=(
                    "quantization",
                    "solutions.temperature",
                    "solutions.top_p",
                    "solutions.max_new_tokens",
                    "training.backend",
                    "execution.generator",
                ),
                code=ANSWERS_BY_ROW.code,
                libraries=MODEL_LIBRARIES,
            ),
        ),
        Stage(
            name="qlora_adapter",
            inputs=("math_split", "base_model", "verified_solutions"),
            recipe=("quantization", "lora", "training"),
            code=("ernie_pipeline.training.job", "ernie_pipeline.training.train"),
            labels=("execution",),
            libraries=(*MODEL_LIBRARIES, "trl", "accelerate"),
        ),
        Stage(
            name="base_evaluation",
            inputs=("math_split", "base_model"),
            recipe=("quantization", "evaluation", "training.backend", "execution.generator"),
            code=("ernie_pipeline.evaluation.job", "ernie_pipeline.evaluation.evaluate"),
            labels=("execution",),
            libraries=(*MODEL_LIBRARIES, *GRADING_LIBRARIES),
            by_row=ANSWERS_BY_ROW,
        ),
        Stage(
            name="adapter_evaluation",
            inputs=("math_split", "base_model", "qlora_adapter"),
            recipe=("quantization", "lora", "evaluation", "training.backend", "execution.generator"),
            code=("ernie_pipeline.evaluation.job", "ernie_pipeline.evaluation.evaluate"),
            labels=("execution",),
            libraries=(*MODEL_LIBRARIES, *GRADING_LIBRARIES),
            by_row=replace(
                ANSWERS_BY_ROW,
                inputs=(*ANSWERS_BY_ROW.inputs, "qlora_adapter"),
                recipe=(*ANSWERS_BY_ROW.recipe, "lora"),
            ),
        ),
        Stage(
            name="registered_model",
            inputs=("math_split", "base_model", "qlora_adapter", "base_evaluation", "adapter_evaluation"),
            recipe=("gate", "registry", "quantization", "lora", "training.backend", "evaluation.max_new_tokens"),
            code=(
                "ernie_pipeline.registry.register",
                "ernie_pipeline.registry.request",
                "ernie_pipeline.registry.served_model",
                "ernie_pipeline.evaluation.compare",
            ),
            libraries=("mlflow", *MODEL_LIBRARIES),
            labels=("source",),
        ),
    )
}
"""All that each asset may read, whatever the recipe says; see `stages_for`. A recipe's suites have stages besides."""


def all_stages(recipe: Recipe) -> dict[str, Stage]:
    """`STAGES`, those of the recipe's suites and, where it says where, that of publishing."""
    suites = suite_stages(recipe, ANSWERS_BY_ROW, MODEL_LIBRARIES)
    return {**STAGES, **suites, **published_stages(recipe, MODEL_LIBRARIES)}


def all_sources(recipe: Recipe) -> dict[str, ObservedSource]:
    """`SOURCES`, and the sets of the recipe's suites."""
    return {**SOURCES, **suite_sources(recipe)}


def declared_versions(settings: Settings) -> dict[str, str]:
    """The `Chain.declared_version` of each stage of the recipe, or words in its place where that cannot be found out.

    So the code location opens, and each command and step says in full what is wrong.
    """
    try:
        chain = open_chain(settings)
    except PipelineError:
        return dict.fromkeys(STAGES, "unreadable recipe or settings")
    return {name: _declared_version(chain, name) for name in chain.stages}


def _declared_version(chain: Chain, name: str) -> str:
    try:
        return chain.declared_version(name)
    except PipelineError:
        return "unreadable code"


def open_chain(settings: Settings, run: str | None = None, ask_registry: bool = True) -> Chain:
    """The chain of the settings' recipe over their store.

    Raises `PipelineError` for a recipe that cannot be read, and for a home or an MLflow address that cannot work; with
    a run, which writes, for a home that cannot be written too.

    `ask_registry`: whether an artifact whose registered version is gone counts as lost. With the id of a `run`, the
    recipe and the sources are as this run saw them first: what is edited or pushed while it is under way does not come
    between its steps.
    """
    settings.check_places()
    store = open_store(settings, for_run=bool(run))
    if run:
        settings.make_home()
        pins = store.pins(run)
        recipe = Recipe.model_validate_json(pins.pin("recipe", lambda: settings.load_recipe().model_dump_json()))
        sources = {name: _pinned(pins, name, source) for name, source in all_sources(recipe).items()}
    else:
        recipe = settings.load_recipe()
        sources = all_sources(recipe)
    lost: dict[str, Lost] = {}
    if ask_registry:
        lost = {
            "registered_model": partial(lost_registration, settings),
            PUBLISHED: partial(lost_publication, settings, store),
        }
    chain = chain_of_rounds(with_backend(recipe), store, sources, lost)
    if not run and recipe.source.kind == "file":  # a run's first step tells it itself
        chain.refused["raw_nemotron"] = partial(rows_refused, recipe.source, partial(chain.version, "nemotron_source"))
    if ask_registry and signing.is_said():  # else each run would plan before its first step, for nothing
        chain.refused["registered_model"] = registration_refused
    if ask_registry and PUBLISHED in chain.stages:
        chain.refused[PUBLISHED] = partial(publication_refused, chain.recipe.publish, store)
        chain.told[PUBLISHED] = partial(publication_told, settings, chain.recipe.publish.repo, store)
    return chain


def chain_of_rounds(
    recipe: Recipe,
    store: ArtifactStore,
    sources: Mapping[str, ObservedSource],
    lost: Mapping[str, Lost] | None = None,
) -> Chain:
    """The recipe's chain and, where it asks for several rounds of solutions, with it that of the round before.

    That one is the chain of the same recipe with one round less, and without suites: so each round's solutions and
    adapter are artifacts like any others, and what a recipe with fewer rounds has made is reused.
    """
    sources = {name: ObservedSource(source.section, _asked_once(source)) for name, source in sources.items()}
    before = _round_before(recipe)
    earlier = chain_of_rounds(before, store, sources) if before else None
    return Chain(recipe, store, stages_for(recipe), sources, lost, earlier)


def _asked_once(source: ObservedSource) -> Callable[[Recipe], str]:
    """Its version, for all rounds."""
    found: list[str] = []

    def version(recipe: Recipe) -> str:
        if not found:
            found.append(source.version(recipe))
        return found[0]

    return version


def _round_before(recipe: Recipe) -> Recipe | None:
    solutions, rounds = recipe.solutions, recipe.solutions.rounds - 1
    if recipe.training.on != "solutions" or not rounds:
        return None
    update = {"rounds": rounds, "keep": min(solutions.keep, solutions.samples * rounds)}  # what is kept at most there
    return recipe.model_copy(update={"solutions": solutions.model_copy(update=update), "suites": {}})


def with_backend(recipe: Recipe) -> Recipe:
    """The recipe with its training.backend and execution.generator resolved on this machine, so that what changes the
    output is in the fingerprint. Raises `PipelineError` where one cannot be had."""
    from ernie_pipeline.launch.torchrun import gpus_here
    from ernie_pipeline.models import resolve_backend
    from ernie_pipeline.models.checkpoint.config import model_type
    from ernie_pipeline.models.generation.vllm.interpreter import resolve_generator

    backend = resolve_backend(
        recipe.training.backend,
        recipe.quantization.model_dump(),
        recipe.lora.dropout,
        cuda=gpus_here() > 0,
        model_type=lambda: model_type(recipe.base_model.name, recipe.base_model.revision),
    )
    generator = resolve_generator(recipe.execution.generator)
    return recipe.model_copy(
        update={
            "training": recipe.training.model_copy(update={"backend": backend}),
            "execution": recipe.execution.model_copy(update={"generator": generator}),
        }
    )


def stages_for(recipe: Recipe) -> Mapping[str, Stage]:
    """The stages as the recipe has them: without what it does not ask for, with the libraries of its backend."""
    stages = all_stages(recipe)
    if recipe.training.on != "solutions":
        stages = _without_solutions(stages)
    elif recipe.training.method == "supervised":
        stages["qlora_adapter"] = _without_input(stages["qlora_adapter"], "math_split")  # its rows are the solutions
    if recipe.training.on == "solutions" and recipe.solutions.rounds > 1:
        stages["verified_solutions"] = _after_a_round(stages["verified_solutions"])
    stages["raw_nemotron"] = _with_columns(stages["raw_nemotron"], recipe)
    return _with_backend_libraries(with_method(stages, recipe), recipe.training.backend)


def _with_columns(stage: Stage, recipe: Recipe) -> Stage:
    """With the keys that say which columns are read, where the recipe has them: rows of the schema need none."""
    source = recipe.source
    config = ("source.config",) if source.config else ()
    return replace(stage, recipe=(*stage.recipe, *config, *(COLUMN_KEYS if source.has_columns else ())))


def _without_solutions(stages: Mapping[str, Stage]) -> dict[str, Stage]:
    """Nothing is sampled, and what decides how it would be makes nothing stale."""
    not_asked_for = Stage(
        name="verified_solutions",
        inputs=(),
        recipe=("training.on",),
        code=("ernie_pipeline.solutions.not_asked_for",),
        libraries=(),
    )
    adapter = _without_input(stages["qlora_adapter"], "verified_solutions")
    return {**stages, "verified_solutions": not_asked_for, "qlora_adapter": adapter}


def _without_input(stage: Stage, unread: str) -> Stage:
    return replace(stage, inputs=tuple(name for name in stage.inputs if name != unread))


def _after_a_round(stage: Stage) -> Stage:
    """Sampled with the adapter of the round before, whose attempts count too."""
    assert stage.by_row, "solutions are kept by row"
    by_row = replace(
        stage.by_row, inputs=(*stage.by_row.inputs, EARLIER_ADAPTER), recipe=(*stage.by_row.recipe, "lora")
    )
    return replace(stage, inputs=(*stage.inputs, *EARLIER_ROUND), recipe=(*stage.recipe, "lora"), by_row=by_row)


def _with_backend_libraries(stages: Mapping[str, Stage], backend: str) -> Mapping[str, Stage]:
    """The stages, with the libraries that a backend adds to those that run it."""
    more = BACKEND_LIBRARIES.get(backend, ())
    runs_it = {name for name, stage in stages.items() if {"training", "training.backend"} & {*stage.recipe}}
    return {name: _with_libraries(stage, more) if more and name in runs_it else stage for name, stage in stages.items()}


def with_method(stages: Mapping[str, Stage], recipe: Recipe) -> Mapping[str, Stage]:
    """The stages, with what the recipe's method of training reads beyond what every one does."""
    if recipe.training.method != "grpo":
        return stages
    adapter = stages["qlora_adapter"]
    with_grading = replace(
        adapter,
        recipe=(*adapter.recipe, "grpo"),
        code=(*adapter.code, "ernie_pipeline.training.grpo.trainer"),
        libraries=(*adapter.libraries, *GRADING_LIBRARIES),
    )
    return {**stages, "qlora_adapter": with_grading}


def _with_libraries(stage: Stage, more: tuple[str, ...]) -> Stage:
    by_row = stage.by_row and replace(stage.by_row, libraries=(*stage.by_row.libraries, *more))
    return replace(stage, libraries=(*stage.libraries, *more), by_row=by_row)


def asked_base(chain: Chain) -> MadeOf | None:
    """What the quantized base model that the chain's recipe asks for is made of; None if its backend keeps none.

    Raises `PipelineError` when the base model's version cannot be found out.
    """
    if chain.recipe.training.backend != "grouped":
        return None
    return made_of(chain.version("base_model"), chain.recipe.quantization.model_dump(mode="json"))


def asked_rows(chain: Chain) -> set[str] | None:
    """The keys of the sets of kept rows that the chain's recipe asks for, in the rounds before too; None where that
    cannot be found out."""
    try:
        kept = [each.rows(name) for each in chain.rounds() for name in each.stages]
    except PipelineError:
        return None
    return {rows.folder.name for rows in kept if rows}


def _pinned(pins: Pins, name: str, source: ObservedSource) -> ObservedSource:
    return ObservedSource(source.section, lambda recipe: pins.pin(name, lambda: source.version(recipe)))
