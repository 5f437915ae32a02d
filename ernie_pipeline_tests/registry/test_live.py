"""A training in MLflow while it goes on."""

import socket
import time
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


def ends_by(error: type[BaseException], uri: str, said: list[str]) -> None:
    with live_training(watched(uri), said.append, 0) as tell:
        tell({"step": 10, "loss": 0.5})
        raise error


def test_each_step_is_seen_at_once_and_the_run_ends_as_the_training_does(tmp_path: Path) -> None:
    uri, said = sqlite_uri(tmp_path / "mlflow.db"), list[str]()
    with live_training(watched(uri, tmp_path), said.append, 0) as tell:
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
        with pytest.raises(error):
            ends_by(error, uri, said)
        assert runs(uri)[0].info.status == status
    with connected(uri) as client:
        drop_live(client, run.info.experiment_id, "f00d" * 4)
    assert {run.info.status for run in runs(uri)} == {"FAILED", "KILLED"}
    assert said == []


def test_a_short_training_does_not_ask_mlflow_and_a_longer_one_shows_all_that_it_told(tmp_path: Path) -> None:
    uri, said = sqlite_uri(tmp_path / "mlflow.db"), list[str]()
    with live_training(watched(uri, tmp_path), said.append, 60) as tell:
        tell({"step": 1, "loss": 0.5})
    assert not any(tmp_path.iterdir())
    with live_training(watched(uri, tmp_path), said.append, 0.2) as tell:
        tell({"step": 1, "loss": 0.5})
        assert not any(tmp_path.iterdir())
        time.sleep(0.2)
        tell({"step": 2, "loss": 0.25})
    [run] = runs(uri)
    with connected(uri) as client:
        told = [(each.step, each.value) for each in client.get_metric_history(run.info.run_id, "training/loss")]
    assert sorted(told) == [(1, 0.5), (2, 0.25)]
    assert said == []


@pytest.mark.parametrize("listens", [False, True])
def test_where_mlflow_does_not_answer_the_training_goes_on_and_it_is_told_once(listens: bool) -> None:
    """A server that takes a connection and says nothing is waited for once, and for a few seconds."""
    said = list[str]()
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if listens:
            server.listen(8)
        address, began = f"http://127.0.0.1:{server.getsockname()[1]}", time.monotonic()
        with live_training(watched(address), said.append, 0) as tell:
            for step in range(3):
                tell({"step": step, "loss": 0.5})
        assert time.monotonic() - began < 8
    [sentence] = said
    assert sentence.startswith(f"the training is not seen in MLflow while it goes on: MLflow at {address}: ")
