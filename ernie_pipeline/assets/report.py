"""What every asset does alike: reuse or build its stage, then show it in Dagster."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg

from ernie_pipeline.errors import PipelineError
from ernie_pipeline.settings import Settings
from ernie_pipeline.stages import OBSERVED, STAGES, open_chain
from ernie_pipeline.store.artifacts import Artifact
from ernie_pipeline.store.chain import Chain

OWNERS = ["team:fine-tuning"]


@dataclass(frozen=True)
class Face:
    """What an artifact shows of itself: metadata for the asset's page, and the results of its checks."""

    metadata: Mapping[str, Any]
    checks: Iterable[dg.AssetCheckResult] = field(default_factory=tuple)


@contextmanager
def told_in_one_sentence() -> Iterator[None]:
    """A `PipelineError` fails the step with its sentence; a retry would meet the same."""
    try:
        yield
    except PipelineError as error:
        raise dg.Failure(description=str(error), allow_retries=False) from error


def open_settings_chain() -> Chain:
    """The chain that the environment's settings name."""
    return open_chain(Settings.from_environment())


def build_or_reuse(
    context: dg.AssetExecutionContext,
    write: Callable[[Chain, Path], None],
    show: Callable[[Artifact], Face],
    still_holds: Callable[[Artifact], bool] = lambda _: True,
) -> dg.MaterializeResult:
    """The step of a built asset: its artifact from the store or from `write`, reported with what `show` makes of it."""
    name = context.asset_key.to_user_string()
    with told_in_one_sentence():
        chain = open_settings_chain()
        for upstream in STAGES[name].inputs:
            if upstream in OBSERVED:
                _log_observation(context, upstream, chain.version(upstream))
        artifact = chain.reuse_or_build(name, lambda out: write(chain, out), still_holds)
        if artifact.reused:
            context.log.info(f"reused: {name} {artifact.data_version} from {artifact.manifest['built']}, no work done")
        elif artifact.note != "not built yet":
            context.log.warning(f"{name} was built again: {artifact.note}")
        face = show(artifact)
    return dg.MaterializeResult(
        metadata={**face.metadata, **_origin(artifact)},
        data_version=dg.DataVersion(artifact.data_version),
        check_results=list(face.checks),
    )


def observation(context: dg.OpExecutionContext, name: str) -> dg.ObserveResult:
    """The step of an observed asset: its version now."""
    with told_in_one_sentence():
        return dg.ObserveResult(data_version=dg.DataVersion(open_settings_chain().version(name)))


def _log_observation(context: dg.AssetExecutionContext, name: str, version: str) -> None:
    """`dagster asset materialize` does not run observations, so the first reader says what it has seen."""
    context.log_event(dg.AssetObservation(name, tags={"dagster/data_version": version}))


def _origin(artifact: Artifact) -> dict[str, Any]:
    manifest = artifact.manifest
    return {
        "reused": artifact.reused,
        "fingerprint": manifest["fingerprint"],
        "build seconds": manifest["seconds"],
        "built": manifest["built"],
        "artifact": dg.MetadataValue.path(str(artifact.folder)),
    }


def check(name: str, passed: bool, description: str, **metadata: Any) -> dg.AssetCheckResult:
    """A check's result with its sentence."""
    return dg.AssetCheckResult(check_name=name, passed=passed, description=description, metadata=metadata)


def table(rows: list[dict[str, Any]]) -> dg.TableMetadataValue:
    """Rows of plain values as a table on the asset's page."""
    columns = list(rows[0]) if rows else []
    types = {int: "int", float: "float", bool: "bool"}
    return dg.MetadataValue.table(
        records=[dg.TableRecord(row) for row in rows],
        schema=dg.TableSchema([dg.TableColumn(c, types.get(type(rows[0][c]), "string")) for c in columns]),
    )


def model_job(chain: Chain) -> dict[str, Any]:
    """What a training or evaluation process needs to know of the model: engine, base, quantization, lora."""
    from ernie_pipeline.engines import choose_engine
    from ernie_pipeline.engines.checkpoint import pinned_checkpoint

    recipe = chain.recipe
    checkpoint, revision = pinned_checkpoint(recipe.base_model.name, chain.version("base_model"))
    return {
        "engine": choose_engine(recipe.training.engine),
        "base": {"name": recipe.base_model.name, "checkpoint": checkpoint, "revision": revision},
        "quantization": recipe.quantization.model_dump(mode="json"),
        "lora": recipe.lora.model_dump(mode="json"),
        "split": str(chain.artifact("math_split").folder),
    }
