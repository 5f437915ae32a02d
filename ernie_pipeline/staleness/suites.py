"""The stages that a recipe's suites add to the chain: of each its problems, both models' answers, and the comparison.

`suite_NAME_set` (observed), `suite_NAME_problems`, `suite_NAME_base` and `suite_NAME_adapter`, `suite_NAME_comparison`.
"""

from collections.abc import Iterable, Mapping
from functools import partial

from ernie_pipeline.grading import LIBRARIES as GRADING_LIBRARIES
from ernie_pipeline.recipe.sections import Recipe
from ernie_pipeline.recipe.suites import SuiteAnswers, SuiteColumns
from ernie_pipeline.staleness.stage import ByRow, ObservedSource, Stage

PREFIX = "suite_"
SET, PROBLEMS, BASE, ADAPTER, COMPARISON = "set", "problems", "base", "adapter", "comparison"
ANSWERED = (BASE, ADAPTER)
"""What is answered by a job on a GPU."""


def suite_asset(name: str, part: str) -> str:
    """The asset that is the `part` of the suite `name`."""
    return f"{PREFIX}{name}_{part}"


def suite_of(asset: str) -> tuple[str, str] | None:
    """The suite's name and the part that an asset is of it; None for one of no suite."""
    name, _, part = asset.removeprefix(PREFIX).rpartition("_")
    known = part in (SET, PROBLEMS, *ANSWERED, COMPARISON)
    return (name, part) if asset.startswith(PREFIX) and name and known else None


def suites_among(assets: Iterable[str]) -> list[str]:
    """The names of the suites whose problems are among the assets."""
    parts = [suite_of(asset) for asset in assets]
    return [found[0] for found in parts if found and found[1] == PROBLEMS]


def answered_by_job(asset: str) -> bool:
    """Whether it holds a model's answers to a suite."""
    found = suite_of(asset)
    return found is not None and found[1] in ANSWERED


def suite_sources(recipe: Recipe) -> Mapping[str, ObservedSource]:
    """What is observed for the recipe's suites, by name."""
    return {
        suite_asset(name, SET): ObservedSource(f"suites.{name}.source", partial(_version, name))
        for name in recipe.suites
    }


def _version(name: str, recipe: Recipe) -> str:
    from ernie_pipeline.data.suites.read import resolve_suite

    return resolve_suite(name, recipe.suites[name].source)


def suite_stages(recipe: Recipe, answers_by_row: ByRow, model_libraries: tuple[str, ...]) -> dict[str, Stage]:
    """The stages of the recipe's suites, each suite's together. `answers_by_row`: what decides a greedy answer of the
    base model besides its limit of tokens."""
    stages = [stage for name in recipe.suites for stage in _stages_of(name, recipe, answers_by_row, model_libraries)]
    return {stage.name: stage for stage in stages}


def _stages_of(name: str, recipe: Recipe, answers_by_row: ByRow, model_libraries: tuple[str, ...]) -> list[Stage]:
    problems, base, adapter = (suite_asset(name, part) for part in (PROBLEMS, BASE, ADAPTER))
    return [
        Stage(
            name=problems,
            inputs=(suite_asset(name, SET), "base_model"),
            recipe=_keys(name, SuiteColumns),
            code=("ernie_pipeline.data.suites.job",),
            libraries=("polars", "pyarrow", "numpy", "transformers", "tokenizers", "jinja2"),
        ),
        _answers(base, name, (problems, "base_model"), answers_by_row, model_libraries),
        _answers(adapter, name, (problems, "base_model", "qlora_adapter"), answers_by_row, model_libraries),
        Stage(
            name=suite_asset(name, COMPARISON),
            inputs=("math_split", problems, base, adapter),
            recipe=("decontamination.overlap",),
            code=("ernie_pipeline.data.suites.contamination", "ernie_pipeline.evaluation.suites.compare"),
            libraries=("polars", "pyarrow", "numpy", "scipy"),
        ),
    ]


def _answers(asset: str, name: str, inputs: tuple[str, ...], greedy: ByRow, model_libraries: tuple[str, ...]) -> Stage:
    lora = ("lora",) if "qlora_adapter" in inputs else ()
    kept = (*(key for key in greedy.recipe if not key.startswith("evaluation.")), f"suites.{name}.max_new_tokens")
    return Stage(
        name=asset,
        inputs=inputs,
        recipe=("quantization", *lora, *_keys(name, SuiteAnswers), "training.backend", "execution.generator"),
        code=("ernie_pipeline.evaluation.suites.job", "ernie_pipeline.evaluation.suites.answer"),
        labels=("execution",),
        libraries=(*model_libraries, *GRADING_LIBRARIES),
        # a sampled answer's seed follows from temperature and top_p too, so neither makes the greedy ones stale
        by_row=ByRow(
            inputs=tuple(i for i in inputs if suite_of(i) is None),
            recipe=(*kept, *lora),
            code=greedy.code,
            libraries=greedy.libraries,
        ),
    )


def _keys(name: str, section: type[SuiteColumns | SuiteAnswers]) -> tuple[str, ...]:
    return tuple(f"suites.{name}.{key}" for key in section.model_fields)
