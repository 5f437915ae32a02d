"""Scenarios 10 and 11: artifacts are deleted, altered, cut off; and what was registered is gone."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ernie_pipeline_tests.scenarios.chain import ASSETS, FRESH, left_half_written
from ernie_pipeline_tests.scenarios.homes import ALL_IN_A_BUCKET
from ernie_pipeline_tests.scenarios.staleness.workplace import Workplace


def another_byte(file: Path) -> None:
    """One byte changed in its middle; size and time of change are as before."""
    status, content = file.stat(), bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


def cut_off(file: Path) -> None:
    """Its last byte gone."""
    os.truncate(file, file.stat().st_size - 1)


@pytest.mark.parametrize(
    ("stage", "name", "harm", "said"),
    [
        ("raw_nemotron", "", shutil.rmtree, "artifact deleted"),
        ("qlora_adapter", "", shutil.rmtree, "artifact deleted"),
        ("math_split", "train.parquet", another_byte, "artifact altered: train.parquet"),
        (
            "qlora_adapter",
            "adapter/adapter_model.safetensors",
            another_byte,
            "artifact altered: adapter/",
        ),
        ("math_split", "reports/counts.json", cut_off, "artifact altered: reports/counts.json"),
        ("base_evaluation", "metrics.json", cut_off, "artifact altered: metrics.json"),
        ("adapter_evaluation", "probe.json", Path.unlink, "artifact altered: probe.json is missing"),
        pytest.param(
            "registered_model",
            "manifest.json",
            Path.unlink,
            "artifact altered: manifest.json is missing",
            marks=pytest.mark.skipif(ALL_IN_A_BUCKET, reason="without its manifest an object is part of no artifact"),
        ),
        ("raw_nemotron", "manifest.json", another_byte, "artifact altered: manifest.json"),
    ],
)
def test_the_plan_says_what_happened_to_an_artifact(
    built: Workplace, stage: str, name: str, harm: Callable[[Path], None], said: str
) -> None:
    """Scenarios 10 and 11."""
    harm(built.artifact(stage) / name)
    planned = built.plan()
    assert planned.status == 3
    assert planned.todo.pop(stage).startswith(f"stale: {said}")
    assert all(why.startswith("waiting: waits for ") for why in planned.todo.values())


def test_what_was_lost_is_built_again_and_below_it_all_is_reused(built: Workplace) -> None:
    """Scenarios 10 and 11: raw rows deleted, split altered; both come out as they were."""
    raw, split = built.artifact("raw_nemotron"), built.artifact("math_split")
    shutil.rmtree(raw)
    another_byte(split / "train.parquet")
    assert built.plan().todo["raw_nemotron"] == "stale: artifact deleted"
    assert built.plan().todo["math_split"] == "stale: artifact altered: train.parquet"
    run = built.materialize()
    assert run.status == 0, run.output[-5000:]
    assert run.built == ["raw_nemotron", "math_split"]
    assert sorted(run.reused) == sorted(ASSETS[2:])
    assert "math_split was built again: artifact altered: train.parquet" in run.output
    assert (built.artifact("raw_nemotron"), built.artifact("math_split")) == (raw, split)
    assert not left_half_written(built.home)
    planned = built.plan()
    assert (planned.status, planned.todo) == FRESH


def test_a_registry_that_is_gone_makes_the_registration_stale_alone(built: Workplace) -> None:
    (built.home / "mlflow.db").unlink()
    planned = built.plan()
    assert planned.status == 3
    assert list(planned.todo) == ["registered_model"]
    assert "is not in the registry at sqlite:///" in planned.todo["registered_model"]
