"""What asset pages and MLflow are told of costs."""

from pathlib import Path
from typing import Any

import pytest

from ernie_pipeline.orchestration.cost_report import cost_figures, cost_metadata, estimate_metadata, spent_metadata
from ernie_pipeline.orchestration.metering import run_folder
from ernie_pipeline.recipe.budget import Price
from ernie_pipeline.staleness.cost import Cost
from ernie_pipeline.store.artifacts import Artifact, ArtifactStore
from ernie_pipeline.store.spending import SpendingRecord
from ernie_pipeline_tests.staleness.chains import chain_of, recipe_with, walk
from ernie_pipeline_tests.staleness.jobs import answered, split_of, trained

EURO = Price(36.0, "EUR")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ERNIE_PIPELINE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ERNIE_PIPELINE_GPU_PRICE", "36 EUR")
    return tmp_path


def built(home: Path, gpus: int) -> dict[str, Artifact]:
    writes: dict[str, Any] = {
        "math_split": split_of(8, 4),
        "qlora_adapter": trained(100, 80, samples=8, rows=8, gpus=gpus),
        "base_evaluation": answered(30, 25, made=4, gpus=gpus),
    }
    return walk(chain_of(ArtifactStore(home / "store")), **writes)


def test_the_page_of_what_a_job_made_has_its_gpu_seconds_and_money(home: Path) -> None:
    found = built(home, gpus=2)
    assert cost_metadata(found["qlora_adapter"].manifest, EURO) == {
        "cost": "200 GPU s (2.00 EUR)",
        "GPU seconds": 200,
        "job seconds": 200,
        "jobs": 1,
        "cost (EUR)": 2,
    }
    assert cost_metadata(found["math_split"].manifest, EURO) == {}
    assert spent_metadata("a-run", found["math_split"], EURO) == {}


def test_on_a_cpu_it_says_so(home: Path) -> None:
    page = cost_metadata(built(home, gpus=0)["qlora_adapter"].manifest, None)
    assert page == {"cost": "100 s on the CPU", "GPU seconds": 0, "job seconds": 100, "jobs": 1}


def test_what_begins_is_estimated_on_its_page(home: Path) -> None:
    chain = chain_of(ArtifactStore(home / "store"))
    assert estimate_metadata(chain, "math_split", None) == {}
    walk(chain, math_split=split_of(8, 4))
    new = chain_of(ArtifactStore(home / "new"))
    for name in ("raw_nemotron", "math_split"):
        new.reuse_or_build(name, lambda work, out: (out / "x").touch())
    [said] = estimate_metadata(new, "base_evaluation", None).values()
    assert said == "unknown (never built with this base model; one build of it makes an estimate)"
    built(home / "other", gpus=2)
    again = chain_of(ArtifactStore(home / "other" / "store"), recipe_with(evaluation={"grading_timeout_s": 9.0}))
    [said] = estimate_metadata(again, "base_evaluation", EURO).values()
    assert said.startswith("60 GPU s (0.60 EUR) (4 of 4 answers to do; the build of ")


def test_mlflow_gets_each_asset_the_model_and_the_run(home: Path) -> None:
    costs = {
        "qlora_adapter": Cost(seconds=100, gpu_seconds=100, jobs=1),
        "base_evaluation": Cost(seconds=50, gpu_seconds=0, jobs=1),
    }
    record = SpendingRecord("qlora_adapter", 1, [run_folder("a-run")], iter([0.0, 10.0, 10.0]).__next__)
    record.write()
    assert cost_figures(costs, "a-run") == {
        "qlora_adapter": {"gpu_seconds": 100, "job_seconds": 100, "eur": 1},
        "base_evaluation": {"gpu_seconds": 0, "job_seconds": 50, "eur": 0},
        "model": {"gpu_seconds": 100, "job_seconds": 150, "eur": 1},
        "run": {"gpu_seconds": 10, "job_seconds": 10, "eur": 0.1},
    }
