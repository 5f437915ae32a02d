"""The adapter as a checked version in MLflow's model registry, and the gate to `champion`."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg

from ernie_pipeline.orchestration.cost_report import cost_figures
from ernie_pipeline.orchestration.pages.registration import show_registration
from ernie_pipeline.orchestration.plots import accuracy_by_kind, pictures_of_training
from ernie_pipeline.orchestration.recipes import each_recipe
from ernie_pipeline.orchestration.report import OWNERS, build_or_reuse, settings_for
from ernie_pipeline.recipe.settings import Settings
from ernie_pipeline.recipe.signing import Signing
from ernie_pipeline.staleness.chain import Chain
from ernie_pipeline.staleness.cost import Cost
from ernie_pipeline.staleness.forecast import standing_costs
from ernie_pipeline.staleness.stage import Work
from ernie_pipeline.staleness.stages import STAGES
from ernie_pipeline.store.artifacts import Artifact, ArtifactStore, Check
from ernie_pipeline.store.quantized_base import FOLDER, PLACE
from ernie_pipeline.store.shared.settled import open_store

ABOVE = ["math_split", "qlora_adapter", "base_evaluation", "adapter_evaluation"]


@each_recipe(
    deps=[*ABOVE, "base_model"],
    group_name="registry",
    kinds={"mlflow"},
    owners=OWNERS,
    description="A version of the model in MLflow, loaded back and compared; `champion` if it beats base and champion.",
    check_specs=[
        dg.AssetCheckSpec("gate", asset="registered_model", description="The adapter is the registry's champion.")
    ],
)
def registered_model(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
    settings, costs, chains = settings_for(context), dict[str, Cost](), list[Chain]()

    def write(work: Work, out: Path) -> list[Check]:
        check = _write(work, out, settings, context, costs)
        registration = json.loads((out / "registration.json").read_text(encoding="utf-8"))
        place = f"{registration['name']} {registration['version']} ({', '.join(registration['aliases'])})"
        gate = f"; the gate passed: {check.description}" if check.passed else ""  # a refusal is told as a warning
        context.log.info(f"registered as {place}{gate}")
        return [check]

    def look_above(chain: Chain) -> None:
        chains.append(chain)
        costs.update(standing_costs(chain))

    def show(artifact: Artifact) -> dict[str, Any]:
        if not artifact.reused:  # those of a suite that was compared since are logged when that is
            from ernie_pipeline.orchestration.suite_figures import log_suites  # which imports scipy

            log_suites(settings, chains[0], artifact, context.log.warning)
        return show_registration(artifact, settings, chains[-1])

    return build_or_reuse(context, write, show, build_above=look_above)


def _write(
    work: Work, out: Path, settings: Settings, context: dg.AssetExecutionContext, costs: Mapping[str, Cost]
) -> Check:
    from ernie_pipeline.data.read.source import describe_source
    from ernie_pipeline.evaluation.compare import compare_evaluations
    from ernie_pipeline.registry.aliases import sole_mover
    from ernie_pipeline.registry.register import register
    from ernie_pipeline.registry.registration import RUN_ONLY
    from ernie_pipeline.registry.request import make_request

    store, run_id, tell = open_store(settings, for_run=True), context.run.run_id, context.log.info
    tell("comparing the answers of base and adapter")
    folders = {name: artifact.folder for name, artifact in work.artifacts.items()}
    comparison = compare_evaluations(folders["base_evaluation"], folders["adapter_evaluation"])
    request = make_request(
        work.recipe,
        tracking_uri=settings.tracking_uri,
        artifact_root=settings.artifact_root,
        versions=work.made_from.inputs,
        folders=folders,
        built_with=[artifact.manifest["recipe"] for artifact in work.artifacts.values()],
        comparison=comparison,
        source=describe_source(work.recipe.source),
        costs=cost_figures(costs, run_id),
        pictures=_pictures(work),
        provenance=_provenance(store, work, run_id),
        signing=Signing.from_environment(),
        tags={RUN_ONLY: run_id, "fingerprint": work.made_from.fingerprint},
        trained=work.artifacts["qlora_adapter"].manifest["fingerprint"],
    )
    os.environ.setdefault(PLACE, str(settings.store / FOLDER))  # for the process that loads the model back
    registration = register(request, partial(sole_mover, store), tell)
    (out / "comparison.json").write_text(json.dumps(comparison, indent=1) + "\n", encoding="utf-8")
    (out / "registration.json").write_text(json.dumps(asdict(registration), indent=1) + "\n", encoding="utf-8")
    return Check("gate", registration.promoted, " ".join(registration.reasons), blocking=False)


def _pictures(work: Work) -> dict[str, bytes]:
    """PNG files for MLflow, by name."""
    base, adapter = (work.artifacts[f"{name}_evaluation"].json("metrics.json") for name in ("base", "adapter"))
    curve = work.artifacts["qlora_adapter"].json("curve.json")
    return {**pictures_of_training(curve), "accuracy_by_kind": accuracy_by_kind(base, adapter)}


def _provenance(store: ArtifactStore, work: Work, run_id: str) -> dict[str, Any]:
    """SLSA's, by the chain of manifests that ends in what this stage reads."""
    from ernie_pipeline.registry.lineage import walk_back
    from ernie_pipeline.registry.provenance import predicate

    made = work.made_from
    read = {name: artifact.manifest["fingerprint"] for name, artifact in work.artifacts.items()}
    links = walk_back(store, made.inputs, made.stage, STAGES, read)
    return predicate(links, made.recipe, made.fingerprint, run_id)
