"""What an MLflow run holds besides the model: parameters, metrics, curves, and the data set as its input."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Dataset
    from mlflow.types import DataType, Schema

BATCH = {"metrics": 1000, "params": 100, "tags": 100}
"""What MLflow takes in one call."""

DIGEST_CHARS = 36
"""The longest data set digest that MLflow stores; the whole data version stands in the profile."""


@dataclass(frozen=True)
class DatasetFiles:
    """The data set that an adapter was trained and measured on: two Parquet files, and where their rows come from."""

    name: str
    source: str
    version: str
    train_path: Path
    eval_path: Path


def log_values(
    client: "MlflowClient",
    run_id: str,
    *,
    params: Mapping[str, str | int | float] | None = None,
    metrics: Mapping[str, float] | None = None,
    curve: Sequence[Mapping[str, float]] = (),
    tags: Mapping[str, str] | None = None,
    model_id: str | None = None,
) -> None:
    """Log everything in as few calls as MLflow allows; `metrics` are those of the model `model_id` too."""
    from mlflow.entities import Metric, Param, RunTag

    now = int(time.time() * 1000)
    points = [
        Metric(key, float(value), now, int(entry["step"]))
        for entry in curve
        for key, value in entry.items()
        if key != "step" and value is not None
    ]
    values: dict[str, list[object]] = {
        "metrics": points + [Metric(k, float(v), now, 0, model_id=model_id) for k, v in (metrics or {}).items()],
        "params": [Param(key, str(value)) for key, value in (params or {}).items()],
        "tags": [RunTag(key, str(value)) for key, value in (tags or {}).items()],
    }
    for kind, size in BATCH.items():
        for start in range(0, len(values[kind]), size):
            client.log_batch(run_id, **{kind: values[kind][start : start + size]}, synchronous=True)


def log_dataset(client: "MlflowClient", run_id: str, dataset: DatasetFiles) -> None:
    """Log both files as inputs, by what their footers say: the rows themselves are not read."""
    from mlflow.entities import DatasetInput, InputTag

    client.log_inputs(
        run_id,
        [
            DatasetInput(_entity(dataset, path, context), [InputTag("mlflow.data.context", context)])
            for context, path in (("training", dataset.train_path), ("evaluation", dataset.eval_path))
        ],
    )


def _entity(dataset: DatasetFiles, path: Path, context: str) -> "Dataset":
    import polars as pl
    from mlflow.entities import Dataset

    rows = pl.scan_parquet(path).select(pl.len()).collect().item()
    return Dataset(
        # both files share the data version, and MLflow keeps one entry for a name and digest
        name=f"{dataset.name}/{path.stem}",
        digest=dataset.version.rpartition(":")[2][:DIGEST_CHARS],
        source_type="local",  # what `mlflow.data.get_source` opens again
        source=json.dumps({"uri": path.resolve().as_uri()}),
        schema=json.dumps({"mlflow_colspec": _schema(path).to_dict()}),
        profile=json.dumps({"rows": rows, "data_version": dataset.version, "from": dataset.source}),
    )


def _schema(path: Path) -> "Schema":
    import polars as pl
    from mlflow.types.schema import Array, ColSpec, DataType, Object, Property, Schema

    def kind(dtype: Any) -> "DataType":
        if isinstance(dtype, pl.List):
            return Array(kind(dtype.inner))
        if isinstance(dtype, pl.Struct):
            return Object([Property(field.name, kind(field.dtype)) for field in dtype.fields])
        if dtype.is_integer():
            return DataType.long
        return DataType.double if dtype.is_float() else DataType.boolean if dtype == pl.Boolean else DataType.string

    return Schema([ColSpec(kind(dtype), name) for name, dtype in pl.read_parquet_schema(path).items()])
