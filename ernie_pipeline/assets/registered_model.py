"""The adapter as a checked version in MLflow's model registry, and the gate to `champion`."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import dagster as dg

from ernie_pipeline.assets.report import OWNERS, Face, build_or_reuse, model_job, table
from ernie_pipeline.settings import Settings
from ernie_pipeline.store.artifacts import Artifact
from ernie_pipeline.store.chain import Chain

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
    settings = Settings.from_environment()

    def write(chain: Chain, out: Path) -> None:
        _write(chain, out, settings, context.run_id)

    return build_or_reuse(context, write, _show, still_holds=lambda artifact: _is_registered(artifact, settings))


def _write(chain: Chain, out: Path, settings: Settings, run_id: str) -> None:
    from ernie_pipeline.data.source import describe_source
    from ernie_pipeline.registry.register import register
    from ernie_pipeline.registry.request import make_request

    artifacts = {name: chain.artifact(name) for name in ABOVE}
    made_from = chain.provenance("registered_model")
    comparison = _compare(artifacts["base_evaluation"], artifacts["adapter_evaluation"])
    request = make_request(
        chain.recipe,
        tracking_uri=settings.tracking_uri,
        artifact_root=settings.artifact_root,
        job=model_job(chain),
        versions=made_from.inputs,
        folders={name: artifact.folder for name, artifact in artifacts.items()},
        comparison=comparison,
        source=describe_source(chain.recipe.source),
        tags={
            "dagster.run_id": run_id,
            "dagster.asset": "registered_model",
            "fingerprint": made_from.fingerprint,
            **{f"fingerprint.{name}": artifact.manifest["fingerprint"] for name, artifact in artifacts.items()},
            **{f"data_version.{name}": version for name, version in made_from.inputs.items()},
        },
    )
    registration = asdict(register(request))
    (out / "comparison.json").write_text(json.dumps(comparison, indent=1) + "\n", encoding="utf-8")
    (out / "registration.json").write_text(json.dumps(registration, indent=1) + "\n", encoding="utf-8")


def _compare(base: Artifact, adapter: Artifact) -> dict[str, Any]:
    """The paired comparison of both evaluations, row by row."""
    import polars as pl

    from ernie_pipeline.evaluation.statistics import compare_paired

    both = pl.read_parquet(base.folder / "predictions.parquet").join(
        pl.read_parquet(adapter.folder / "predictions.parquet"), on="row_id", validate="1:1", maintain_order="left"
    )
    return asdict(compare_paired(both["right"].to_list(), both["right_right"].to_list()))


def _is_registered(artifact: Artifact, settings: Settings) -> bool:
    from ernie_pipeline.registry.register import is_registered

    registration = artifact.json("registration.json")
    return is_registered(settings.tracking_uri, registration["name"], registration["version"])


def _show(artifact: Artifact) -> Face:
    registration, comparison = artifact.json("registration.json"), artifact.json("comparison.json")
    link = registration["run_url"]
    return Face(
        metadata={
            "model": registration["model_uri"],
            "aliases": ", ".join(registration["aliases"]),
            "MLflow run": dg.MetadataValue.url(link) if link.startswith("http") else link,
            "gain in accuracy": comparison["gain"],
            "p-value": comparison["p_value"],
            "comparison with the base model": table([{"what": k, "value": float(v)} for k, v in comparison.items()]),
            "answer after reload": registration["answer"],
            "logits after reload differ by": registration["max_logit_difference"],
        },
        checks=[
            dg.AssetCheckResult(
                check_name="gate",
                passed=registration["promoted"],
                severity=dg.AssetCheckSeverity.WARN,
                description=" ".join(registration["reasons"]),
            )
        ],
    )
