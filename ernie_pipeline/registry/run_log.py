"""What an MLflow run holds besides the model: parameters, metrics, curves, tables, pictures, the data set as input."""

import json
import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ernie_pipeline.utils.flatten import flatten

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Dataset
    from mlflow.types import DataType, Schema

BATCH = {"metrics": 1000, "params": 100, "tags": 100}
"""What MLflow takes in one call."""

PARAMS = ("training.", "lora.", "quantization.", "solutions.", "grpo.", "split.", "evaluation.")
"""Which of the recipe's keys MLflow's tables show as parameters: what is tried out, not how rows are cleaned."""

TABLES = "mlflow.loggedArtifacts"
"""The tag of a run by which MLflow's page knows its tables."""

CONTEXTS = ("training", "evaluation")
"""What a data set's files are for, in MLflow's words."""

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

    def named(self, path: Path) -> tuple[str, str]:
        """MLflow's name and digest of one of the files: both have the data version, and MLflow keeps one entry for a
        name and digest."""
        return f"{self.name}/{path.stem}", self.version.rpartition(":")[2][:DIGEST_CHARS]


def shown_params(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe's keys by which runs are told apart, lists as one text; `recipe`: all keys, flat."""
    shown = {key: value for key, value in recipe.items() if key.startswith(PARAMS)}
    return {key: ", ".join(map(str, value)) if isinstance(value, list) else value for key, value in shown.items()}


def metric_names(figures: Mapping[str, Any]) -> dict[str, float]:
    """{"by_kind": {"integer": {"rows": 3}}} as {"by_kind/integer/rows": 3}: MLflow's page groups charts by "/"."""
    return {name.replace(".", "/"): value for name, value in flatten(figures).items()}


def in_training(entry: Mapping[str, float]) -> dict[str, float]:
    """An entry of a curve, by the names under which MLflow's page shows it."""
    return {key if key == "step" else f"training/{key}": value for key, value in entry.items()}


@dataclass(frozen=True)
class OfModel:
    """Which logged model has a figure, and on which data set, by MLflow's name and digest."""

    model_id: str
    dataset_name: str
    dataset_digest: str


def log_values(
    client: "MlflowClient",
    run_id: str,
    *,
    params: Mapping[str, str | int | float] | None = None,
    metrics: Mapping[str, float] | None = None,
    curve: Sequence[Mapping[str, float]] = (),
    tags: Mapping[str, str] | None = None,
    of: "OfModel | None" = None,
) -> None:
    """Log everything in as few calls as MLflow allows; `of`: whose `metrics` they are, beside the run's."""
    from mlflow.entities import Metric, Param, RunTag

    now, whose = int(time.time() * 1000), asdict(of) if of else {}
    points = [
        Metric(key, float(value), now, int(entry["step"]))
        for entry in curve
        for key, value in entry.items()
        if key != "step" and value is not None
    ]
    values: dict[str, list[object]] = {
        "metrics": points + [Metric(k, float(v), now, 0, **whose) for k, v in (metrics or {}).items()],
        "params": [Param(key, str(value)) for key, value in (params or {}).items()],
        "tags": [RunTag(key, str(value)) for key, value in (tags or {}).items()],
    }
    for kind, size in BATCH.items():
        for start in range(0, len(values[kind]), size):
            client.log_batch(run_id, **{kind: values[kind][start : start + size]}, synchronous=True)


def log_dataset(client: "MlflowClient", run_id: str, dataset: DatasetFiles, contexts: Sequence[str] = CONTEXTS) -> None:
    """Log its files as inputs, by what their footers say: the rows themselves are not read."""
    from mlflow.entities import DatasetInput, InputTag

    paths = dict(zip(CONTEXTS, (dataset.train_path, dataset.eval_path), strict=True))
    client.log_inputs(
        run_id,
        [
            DatasetInput(_entity(dataset, paths[context]), [InputTag("mlflow.data.context", context)])
            for context in contexts
        ],
    )


def log_table(client: "MlflowClient", run_id: str, file: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows with the same columns as a JSON file that MLflow's page shows as a table, in place of what it held before.

    MLflow's own `log_table` would add the rows to these, and keep ten decimals of a number.
    """
    shown = json.loads(client.get_run(run_id).data.tags.get(TABLES, "[]"))
    client.log_dict(run_id, {"columns": [*rows[0]], "data": [[*map(_cell, row.values())] for row in rows]}, file)
    if (table := {"path": file, "type": "table"}) not in shown:
        client.set_tag(run_id, TABLES, json.dumps([*shown, table]))


def _cell(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value  # which JSON has no word for


def read_table(client: "MlflowClient", run_id: str, file: str) -> list[dict[str, Any]] | None:
    """The rows of a table of a run; None where it has none."""
    if file not in {each.path for each in client.list_artifacts(run_id)}:
        return None
    with tempfile.TemporaryDirectory(prefix="ernie_pipeline_") as scratch:
        table = json.loads(Path(client.download_artifacts(run_id, file, scratch)).read_text(encoding="utf-8"))
    return [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]


def log_picture(client: "MlflowClient", run_id: str, file: str, png: bytes) -> None:
    """A picture that MLflow's page shows."""
    with tempfile.TemporaryDirectory(prefix="ernie_pipeline_") as scratch:
        path = Path(scratch, file)
        path.write_bytes(png)
        client.log_artifact(run_id, str(path))


def _entity(dataset: DatasetFiles, path: Path) -> "Dataset":
    import polars as pl
    from mlflow.entities import Dataset

    rows = pl.scan_parquet(path).select(pl.len()).collect().item()
    name, digest = dataset.named(path)
    return Dataset(
        name=name,
        digest=digest,
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
