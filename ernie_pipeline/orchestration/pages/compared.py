"""Several recipes' models side by side: how often each is right before and after, and what it is made of."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import dagster as dg

from ernie_pipeline.orchestration.pages.evaluation import whole
from ernie_pipeline.orchestration.pages.registration import aliases_read
from ernie_pipeline.orchestration.pages.sketch import COLOURS, Bar, bars
from ernie_pipeline.orchestration.pages.tables import table
from ernie_pipeline.orchestration.plots import shares_picture
from ernie_pipeline.orchestration.recipes import RecipeAssets
from ernie_pipeline.orchestration.words import duration, figure, rows
from ernie_pipeline.recipe.budget import Price
from ernie_pipeline.staleness.amounts import spent_words
from ernie_pipeline.staleness.chain import Chain
from ernie_pipeline.staleness.forecast import standing_costs
from ernie_pipeline.staleness.stages import open_chain
from ernie_pipeline.store.artifacts import Artifact
from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline.utils.shares import between, percent, points, points_between

BOTH = ("base", "adapter")
STAGES = ("math_split", "base_evaluation", "adapter_evaluation", "registered_model")


@dataclass(frozen=True)
class Compared:
    """What stands of one recipe's model now; `missing` says what does not, "" where all of it stands.

    `aliases`: those that the registry gives its version now, since they move.
    """

    name: str
    artifacts: dict[str, Artifact]
    cost: str = ""
    missing: str = ""
    aliases: str = ""


def look_at(recipe: RecipeAssets, price: Price | None) -> Compared:
    """The artifacts that the recipe asks for, as far as they stand."""
    found: dict[str, Artifact] = {}
    try:
        chain = open_chain(recipe.settings())
        for stage in STAGES:
            found[stage] = chain.artifact(stage)
    except PipelineError as error:
        return Compared(recipe.name, found, missing=str(error))
    registration = found["registered_model"].json("registration.json")
    return Compared(recipe.name, found, _cost(chain, price), aliases=aliases_read(registration, recipe.settings()))


def versions_of(compared: Sequence[Compared]) -> dict[str, dict[str, str]]:
    """What is compared: of each recipe, the data version of what stands."""
    return {
        each.name: {stage: artifact.data_version for stage, artifact in each.artifacts.items()} for each in compared
    }


def show_compared(compared: Sequence[Compared]) -> dict[str, Any]:
    """What is told of the recipes, the best first."""
    whole_ones = sorted((each for each in compared if not each.missing), key=_accuracy, reverse=True)
    missing = [{"recipe": each.name, "why": each.missing} for each in compared if each.missing]
    drawn = [_bar(each, "adapter", COLOURS[1]) for each in whole_ones]
    both = [_bar(each, model, colour) for each in whole_ones for model, colour in zip(BOTH, COLOURS, strict=False)]
    return {
        **({"after training": dg.MetadataValue.md(bars("after training", drawn))} if drawn else {}),
        "right answers": table(map(_answers, whole_ones)),
        "made of": table(map(_made_of, whole_ones)),
        **({"comparable": _comparable(whole_ones)} if len(whole_ones) > 1 else {}),
        **({"before and after": dg.MetadataValue.md(shares_picture(both))} if drawn else {}),
        **({"not built": table(missing, cut=300)} if missing else {}),
    }


def _accuracy(each: Compared) -> float:
    return float(_metrics(each, "adapter")["accuracy"])


def _metrics(each: Compared, model: str) -> dict[str, Any]:
    found: dict[str, Any] = each.artifacts[f"{model}_evaluation"].json("metrics.json")
    return found


def _bar(each: Compared, model: str, colour: str) -> Bar:
    label = each.name if model == "adapter" else f"{each.name}, base"
    return whole(_metrics(each, model), label, colour)


def _answers(each: Compared) -> dict[str, Any]:
    base, adapter = (_metrics(each, model) for model in ("base", "adapter"))
    gain = each.artifacts["registered_model"].json("comparison.json")
    return {
        "recipe": each.name,
        "before": percent(base["accuracy"]),
        "after": f"{percent(adapter['accuracy'])} ({between(adapter['accuracy_low'], adapter['accuracy_high'])})",
        "gain": f"{points(gain['gain'])} ({points_between(gain['gain_low'], gain['gain_high'])})",
    }


def _made_of(each: Compared) -> dict[str, Any]:
    registration = each.artifacts["registered_model"].json("registration.json")
    places = each.artifacts["math_split"].json("reports/profile.json")["places"]
    losses = [figure(_metrics(each, model)["loss_completion"]) for model in ("base", "adapter")]
    return {
        "recipe": each.name,
        "rows": places["train"],
        "loss": " -> ".join(losses),
        "cost": each.cost,
        "model": f"{registration['name']} {registration['version']}",
        "aliases": each.aliases,
    }


def _comparable(compared: Sequence[Compared]) -> str:
    """Whether they answered the same questions: else one figure above another says little."""
    import polars as pl

    folders = [each.artifacts["adapter_evaluation"].folder for each in compared]
    answers = [pl.read_parquet(folder / "predictions.parquet", columns=["row_id"]) for folder in folders]
    if len({frozenset(each["row_id"]) for each in answers}) == 1:
        return f"yes: all answered the same {rows(answers[0].height, 'held-out row')}"
    return "not with each other: they answered other held-out rows, so compare the gains, each with its own base model"


def _cost(chain: Chain, price: Price | None) -> str:
    with suppress(PipelineError):
        costs = standing_costs(chain).values()
        seconds, gpu_seconds = sum(cost.seconds for cost in costs), sum(cost.gpu_seconds for cost in costs)
        return spent_words(seconds, gpu_seconds, price) if gpu_seconds else f"{duration(seconds)} of CPU"
    return ""
