"""The QLoRA adapter, trained in a process of its own on the `gpu` resource."""

import json
import math
from pathlib import Path

import dagster as dg

from ernie_pipeline.orchestration.assets.math_split import checked_split
from ernie_pipeline.orchestration.gpu import GpuResource
from ernie_pipeline.orchestration.pages.adapter import show_adapter
from ernie_pipeline.orchestration.recipes import each_recipe
from ernie_pipeline.orchestration.report import OWNERS, build_or_reuse, settings_for
from ernie_pipeline.recipe.settings import Settings
from ernie_pipeline.registry.live import Watched, live_training
from ernie_pipeline.registry.run_log import shown_params
from ernie_pipeline.staleness.chain import Write
from ernie_pipeline.staleness.stage import Work
from ernie_pipeline.store.artifacts import Check
from ernie_pipeline.store.quantized_base import FOLDER
from ernie_pipeline.utils.flatten import flatten


@each_recipe(
    deps=["math_split", "base_model", "verified_solutions"],
    group_name="model",
    kinds={"pytorch", "huggingface"},
    owners=OWNERS,
    pool="gpu",
    description="LoRA weights on every target of the 4-bit base model, trained on the rows or on its own solutions.",
    check_specs=[
        dg.AssetCheckSpec(
            "changed_the_model", asset="qlora_adapter", blocking=True, description="The adapter changes the logits."
        )
    ],
)
def qlora_adapter(context: dg.AssetExecutionContext, gpu: GpuResource) -> dg.MaterializeResult:
    return build_or_reuse(context, training(context, gpu), show_adapter)


def training(context: dg.AssetExecutionContext, gpu: GpuResource) -> Write:
    """What fills the artifact."""

    def write(work: Work, out: Path) -> list[Check]:
        from ernie_pipeline.training.job import training_job

        base, checkpoints = work.made_from.inputs["base_model"], work.unfinished / "checkpoints"
        solutions = work.folder("verified_solutions") if "verified_solutions" in work.artifacts else None
        job = training_job(
            work.recipe,
            base,
            Settings.from_environment().store / FOLDER,
            execution=gpu.execution_over(work.recipe.execution),
            limits=gpu.limits(gpu.processes),
            split=checked_split(work) if "math_split" in work.artifacts else solutions,
            solutions=solutions,
            out=out,
            checkpoints=checkpoints,
        )
        with live_training(_watched(work, settings_for(context), context.run.run_id), context.log.warning) as tell:
            gpu.run(context, "training", job, unfinished=work.unfinished, processes=gpu.processes, on_progress=tell)
        change = json.loads((out / "reports" / "run.json").read_text())["logit_change"]
        return [changed_the_model(change)]

    return write


def _watched(work: Work, settings: Settings, run_id: str) -> Watched:
    """How the training is seen in MLflow. Where that is, the whole recipe says: it decides nothing of the adapter."""
    keys = shown_params(flatten(work.made_from.recipe))
    registry = settings.load_recipe().registry
    return Watched(
        tracking_uri=settings.tracking_uri,
        artifact_root=settings.artifact_root,
        experiment=registry.experiment,
        model_name=registry.model_name,
        fingerprint=work.made_from.fingerprint,
        params=keys,
        tags={"dagster.run_id": run_id},
    )


def changed_the_model(change: float) -> Check:
    """The check's outcome; `change`: by how much the adapter moves the logits at most, on a row that measures."""
    name, found = "changed_the_model", f"on a row set aside the adapter moves the logits by up to {change:.3g}"
    if change > 0 and math.isfinite(change):
        return Check(name, True, found)
    cure = "train longer or raise training.learning_rate" if change == 0 else "lower training.learning_rate"
    return Check(name, False, f"{found}; {cure}")
