"""The champion on the Hugging Face hub. There is this asset only where the recipe has a table `[publish]`."""

import os
from pathlib import Path
from typing import Any

import dagster as dg

from ernie_pipeline.orchestration.plots import pictures_of_training
from ernie_pipeline.orchestration.report import OWNERS, build_or_reuse, table
from ernie_pipeline.recipe.settings import Settings
from ernie_pipeline.recipe.signing import Signing
from ernie_pipeline.staleness.elsewhere import publication_told
from ernie_pipeline.staleness.stage import Work
from ernie_pipeline.store.artifacts import Artifact, Check
from ernie_pipeline.store.quantized_base import FOLDER, PLACE
from ernie_pipeline.store.shared.settled import open_store

MEASURED = ["math_split", "qlora_adapter", "base_evaluation", "adapter_evaluation"]


@dg.asset(
    deps=[*MEASURED, "base_model", "registered_model"],
    group_name="registry",
    kinds={"huggingface"},
    owners=OWNERS,
    pool="gpu",
    description="The champion on the Hugging Face hub: its files, card, licence, provenance and signature, one commit.",
    check_specs=[
        dg.AssetCheckSpec(
            "published", asset="published_model", description="It is the champion, on the hub, each form loaded back."
        )
    ],
)
def published_model(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
    # before torch is imported, as in launch/local.py: threads that spin while they wait are slow beside other work
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

    def write(work: Work, out: Path) -> list[Check]:
        checks = _write(work, out, context)
        for check in checks:
            context.log.info(check.description)
        return checks

    return build_or_reuse(context, write, lambda artifact: {**_there_instead(artifact), **_show(artifact)})


def _write(work: Work, out: Path, context: dg.AssetExecutionContext) -> list[Check]:
    from ernie_pipeline.data.read.source import describe_source
    from ernie_pipeline.registry.publish.publish import Request, publish

    settings = Settings.from_environment()
    os.environ.setdefault(PLACE, str(settings.store / FOLDER))  # for the processes that load the model back
    adapter, registered = work.artifacts["qlora_adapter"], work.artifacts["registered_model"]
    (picture,) = pictures_of_training(adapter.json("curve.json")).values()
    request = Request(
        settings=settings,
        recipe=work.recipe,
        versions=work.made_from.inputs,
        folders={name: work.folder(name) for name in MEASURED},
        built_with=[work.artifacts[name].manifest["recipe"] for name in MEASURED],
        registration=registered.json("registration.json"),
        comparison=registered.json("comparison.json"),
        source=describe_source(work.recipe.source),
        benchmarks=work.recipe.benchmarks.sets,
        picture=picture,
        signing=Signing.from_environment(),
    )
    return publish(request, out, context.log.info)


def _there_instead(artifact: Artifact) -> dict[str, Any]:
    """What the repository has where that is not the champion, as after a rollback."""
    settings = Settings.from_environment()
    told = publication_told(settings, artifact.json("publication.json")["repo"], open_store(settings, for_run=False))
    return {"not the champion": told} if told else {}


def _show(artifact: Artifact) -> dict[str, Any]:
    told = artifact.json("publication.json")
    if not told["published"]:
        return {"published": False, "why": told["why"]}
    files = [{"file": name, "bytes": entry["size"]} for name, entry in told["files"].items()]
    return {
        "published": True,
        "commit": dg.MetadataValue.url(told["url"]),
        "repository": told["repo"],
        "version": f"{told['name']} {told['version']}",
        "private": told["private"],
        "tag": told["tag"] or "none",
        "signed": told["signed"],
        "not loaded back here": ", ".join(form for form, loaded in told["loaded_back"].items() if not loaded) or "none",
        "files": table(files),
        "card": dg.MetadataValue.md((artifact.folder / "reports" / "README.md").read_text(encoding="utf-8")),
    }
