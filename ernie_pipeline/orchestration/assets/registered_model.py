"""The adapter as a checked version in MLflow's model registry, and the gate to `champion`."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg

from ernie_pipeline.orchestration.cost_report import cost_figures
from ernie_pipeline.orchestration.plots import accuracy_by_kind, pictures_of_training
from ernie_pipeline.orchestration.report import OWNERS, build_or_reuse, table
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
from ernie_pipeline.utils.errors import PipelineError

ABOVE = ["math_split", "qlora_adapter", "base_evaluation", "adapter_evaluation"]


@dg.asset(
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
    settings, costs, chains = Settings.from_environment(), dict[str, Cost](), list[Chain]()

    def look_above(chain: Chain) -> None:
        chains.append(chain)
        costs.update(standing_costs(chain))

    def write(work: Work, out: Path) -> list[Check]:
        check = _write(work, out, settings, context.run_id, costs)
        registration = json.loads((out / "registration.json").read_text(encoding="utf-8"))
        place = f"{registration['name']} {registration['version']} ({', '.join(registration['aliases'])})"
        gate = "the gate passed" if check.passed else "the gate did not pass"
        context.log.info(f"registered as {place}; {gate}: {check.description}")
        return [check]

    def show(artifact: Artifact) -> dict[str, Any]:
        from ernie_pipeline.orchestration.suite_figures import log_suites

        if not artifact.reused:  # those of a suite that was compared since are logged when that is
            log_suites(settings, chains[0], artifact, context.log.warning)
        return {**_aliases(artifact, settings), **_show(artifact)}

    return build_or_reuse(context, write, show, build_above=look_above)


def _write(work: Work, out: Path, settings: Settings, run_id: str, costs: Mapping[str, Cost]) -> Check:
    from ernie_pipeline.data.read.source import describe_source
    from ernie_pipeline.evaluation.compare import compare_evaluations
    from ernie_pipeline.registry.aliases import sole_mover
    from ernie_pipeline.registry.register import RUN_ONLY, register
    from ernie_pipeline.registry.request import make_request

    store = open_store(settings, for_run=True)
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
    registration = register(request, partial(sole_mover, store))
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
    links = walk_back(store, made.inputs, made.stage, STAGES)
    return predicate(links, made.recipe, made.fingerprint, run_id)


def _aliases(artifact: Artifact, settings: Settings) -> dict[str, Any]:
    """A page stays as it was written, and aliases move: those that the version got are told as such, and when those
    that it has were read."""
    from ernie_pipeline.registry.lookup import aliases_now

    registration = artifact.json("registration.json")
    told = {"aliases at registration": ", ".join(registration["aliases"])}
    try:
        now = aliases_now(settings.tracking_uri, registration["name"], str(registration["version"]))
    except PipelineError as error:  # what it was when it was registered stands, whether the registry answers or not
        return {**told, "aliases": f"not known: {error}"}
    read = f"read from the registry at {datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    return {**told, "aliases": f"{', '.join(now or ()) or 'none'} ({read})"}


def _show(artifact: Artifact) -> dict[str, Any]:
    registration, comparison = artifact.json("registration.json"), artifact.json("comparison.json")
    link = registration["run_url"]
    return {
        "model": registration["model_uri"],
        "MLflow run": dg.MetadataValue.url(link) if link.startswith("http") else link,
        "gain in accuracy": comparison["gain"],
        "p-value": comparison["p_value"],
        "comparison with the base model": table([{"what": k, "value": float(v)} for k, v in comparison.items()]),
        "answer after reload": registration["answer"],
        "logits after reload differ by": registration["max_logit_difference"],
    }
