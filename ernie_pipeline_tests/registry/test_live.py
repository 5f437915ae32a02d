"""A training in MLflow while it goes on."""

from pathlib import Path
from typing import Any

import pytest

from ernie_pipeline.recipe.settings import sqlite_uri
from ernie_pipeline.registry.live import Watched, drop_live, live_training
from ernie_pipeline.registry.tracking import connected


def watched(uri: str, root: Path | None = None) -> Watched:
    return Watched(uri, root, "ernie_pipeline", "quick", "f00d" * 4, {"lora.rank": 4}, {"dagster.run_id": "r1"})


def runs(uri: str) -> list[Any]:
    with connected(uri) as client:
        experiment = client.get_experiment_by_name("ernie_pipeline").experiment_id
        return list(client.search_runs([experiment], order_by=["attributes.start_time DESC"]))


def test_each_step_is_seen_at_once_and_the_run_ends_as_the_training_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, said = sqlite_uri(tmp_path / "mlflow.db"), list[str]()
    with live_training(watched(uri, tmp_path), said.append) as tell:
        tell({"step": 10, "max_steps": 20, "loss": 0.5, "estimated_end": "soon", "gradient_norm": float("nan")})
        [run] = runs(uri)
        assert (run.info.status, run.data.metrics, run.data.params) == (
            "RUNNING",
            {"training/loss": 0.5},
            {"lora.rank": "4"},
        )
        tell({"step": 20, "loss": 0.25})
    [run] = runs(uri)
    assert (run.info.status, run.data.metrics["training/loss"]) == ("FINISHED", 0.25)
    for error, status in ((ValueError, "FAILED"), (KeyboardInterrupt, "KILLED")):
        with pytest.raises(error), live_training(watched(uri), said.append):
            raise error
        assert runs(uri)[0].info.status == status
    with connected(uri) as client:
        drop_live(client, run.info.experiment_id, "f00d" * 4)
    assert {run.info.status for run in runs(uri)} == {"FAILED", "KILLED"}
    assert said == []


def test_where_mlflow_does_not_answer_the_training_goes_on_and_it_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    said = list[str]()
    with live_training(watched("http://127.0.0.1:9"), said.append) as tell:
        tell({"step": 1, "loss": 0.5})
    [sentence] = said
    assert sentence.startswith("the training is not seen in MLflow while it goes on: MLflow at http://127.0.0.1:9: ")
