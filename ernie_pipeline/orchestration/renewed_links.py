"""Pages of registered models that lead to MLflow where it is now, and not where it was when they were written."""

from collections.abc import Mapping
from typing import Any

import dagster as dg
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluationTargetMaterializationData

from ernie_pipeline.orchestration.links import LINK

REGISTERED, GATE = "registered_model", "gate"


def renew_mlflow_links(instance: dg.DagsterInstance, root: str) -> list[dg.AssetKey]:
    """Let the newest page of each registered model lead to MLflow at the address `root`; those that did not.

    A page stays as it was written, so it is written once more, with what its check said. No work stands behind that.
    """
    renewed = []
    for key in (key for key in instance.get_asset_keys() if key.path[-1] == REGISTERED):
        event = instance.get_latest_materialization_event(key)
        written = event.asset_materialization if event else None
        if written and (metadata := _moved(written.metadata, root)) != written.metadata:
            told = f"No work was done: MLflow is at {root} now."
            instance.report_runless_asset_event(written._replace(description=told, metadata=metadata))
            _check_again(instance, key)
            renewed.append(key)
    return renewed


def _moved(metadata: Mapping[str, Any], root: str) -> dict[str, Any]:
    """The metadata with all addresses that begin as the link to the version does."""
    link = metadata.get(LINK)
    if not isinstance(link, dg.UrlMetadataValue) or not link.url:
        return dict(metadata)
    before, after = f"{link.url.partition('/#/')[0]}/#/", f"{root.rstrip('/')}/#/"

    def moved(value: Any) -> Any:
        if isinstance(value, dg.UrlMetadataValue):
            return dg.MetadataValue.url((value.url or "").replace(before, after))
        if isinstance(value, dg.MarkdownMetadataValue):
            return dg.MetadataValue.md((value.md_str or "").replace(before, after))
        return value

    return {name: moved(value) for name, value in metadata.items()}


def _check_again(instance: dg.DagsterInstance, key: dg.AssetKey) -> None:
    """What the gate said stands for the page that was written last: Dagster shows it for no other one."""
    [last] = instance.fetch_materializations(key, limit=1).records
    check = dg.AssetCheckKey(key, GATE)
    found = instance.event_log_storage.get_latest_asset_check_execution_by_key([check]).get(check)
    event = found.event.dagster_event if found and found.event else None
    if event and event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION:
        said = event.asset_check_evaluation_data
        instance.report_runless_asset_event(
            dg.AssetCheckEvaluation(
                asset_key=key,
                check_name=GATE,
                passed=said.passed,
                metadata=said.metadata,
                severity=said.severity,
                description=said.description,
                blocking=said.blocking,
                target_materialization_data=AssetCheckEvaluationTargetMaterializationData(
                    storage_id=last.storage_id, run_id=last.run_id, timestamp=last.timestamp
                ),
            )
        )
