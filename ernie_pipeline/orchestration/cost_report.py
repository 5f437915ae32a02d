"""What artifacts and runs cost, for the assets' pages and for MLflow."""

from collections.abc import Mapping
from typing import Any

from ernie_pipeline.orchestration.metering import spent_by_run
from ernie_pipeline.orchestration.words import rounded
from ernie_pipeline.recipe.budget import Budget, Price
from ernie_pipeline.staleness.amounts import range_words, spent_words
from ernie_pipeline.staleness.chain import Chain
from ernie_pipeline.staleness.cost import Cost, cost_of
from ernie_pipeline.staleness.forecast import estimate_build
from ernie_pipeline.store.artifacts import Artifact


def cost_metadata(manifest: Mapping[str, Any], price: Price | None) -> dict[str, Any]:
    """What an artifact cost, for its asset's page: nothing where no job made it."""
    cost = cost_of(manifest)
    if cost is None:
        return {}
    return {
        "cost": spent_words(cost.seconds, cost.gpu_seconds, price),
        "GPU seconds": rounded(cost.gpu_seconds),
        "job seconds": rounded(cost.seconds),
        "jobs": cost.jobs,
        **({"seconds waited for a place to run": rounded(cost.waited_s)} if cost.waited_s else {}),
        **({f"cost ({price.currency})": round(price.of(cost.gpu_seconds), 4)} if price else {}),
    }


def cost_figures(costs: Mapping[str, Cost], run_id: str) -> dict[str, Any]:
    """For MLflow: what each asset of a model cost, all of them together, and what the run has spent so far.

    GPU seconds, job seconds and, where there is a price, money: "gpu_seconds", "job_seconds", "usd".
    """
    price, spent = Budget.from_environment().price, spent_by_run(run_id)

    def figures(seconds: float, gpu_seconds: float) -> dict[str, float]:
        money = {price.currency.lower(): round(price.of(gpu_seconds), 6)} if price else {}
        return {"gpu_seconds": round(gpu_seconds, 3), "job_seconds": round(seconds, 3), **money}

    whole = (sum(cost.seconds for cost in costs.values()), sum(cost.gpu_seconds for cost in costs.values()))
    return {
        **{name: figures(cost.seconds, cost.gpu_seconds) for name, cost in costs.items()},
        "model": figures(*whole),
        "run": figures(spent.counted, spent.gpu_seconds),
    }


def estimate_metadata(chain: Chain, name: str, price: Price | None) -> dict[str, str]:
    """What the work that begins now is likely to cost; {} for a stage that no job makes."""
    estimate = estimate_build(chain, name)
    if estimate is None:
        return {}
    if estimate.seconds is None or estimate.gpu_seconds is None:
        return {"estimate before": f"unknown ({estimate.basis})"}
    return {"estimate before": f"{range_words(estimate.seconds, estimate.gpu_seconds, price)} ({estimate.basis})"}


def spent_metadata(run_id: str, artifact: Artifact, price: Price | None) -> dict[str, str]:
    """What the run has spent so far, on the page of what a job makes."""
    if cost_of(artifact.manifest) is None:
        return {}
    spent = spent_by_run(run_id)
    return {"spent by this run so far": spent_words(spent.counted, spent.gpu_seconds, price)}
