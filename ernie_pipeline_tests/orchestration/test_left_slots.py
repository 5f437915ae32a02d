"""What an interrupted run holds in a pool is free for the next one; what a run at work holds is not."""

import shutil
from pathlib import Path

import dagster as dg
import pytest

from ernie_pipeline.orchestration import left_slots
from ernie_pipeline.orchestration.left_slots import free_left_slots

CONFIG = Path(__file__).parents[2] / "deploy" / "dagster.yaml"


@dg.op
def a_step() -> None: ...


@dg.job
def a_job() -> None:
    a_step()


@pytest.mark.parametrize(
    ("status", "is_free"), [(dg.DagsterRunStatus.FAILURE, True), (dg.DagsterRunStatus.STARTED, False)]
)
def test_the_place_of_a_run_that_ended_is_freed(status: dg.DagsterRunStatus, is_free: bool, tmp_path: Path) -> None:
    shutil.copy(CONFIG, tmp_path / "dagster.yaml")
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        run = instance.create_run_for_job(a_job, status=status)
        storage = instance.event_log_storage
        storage.initialize_concurrency_limit_to_default("gpu")
        assert storage.claim_concurrency_slot("gpu", run.run_id, "qlora_adapter").is_claimed
        assert free_left_slots(tmp_path) == [run.run_id] * is_free
        assert storage.claim_concurrency_slot("gpu", "another", "qlora_adapter").is_claimed is is_free


@pytest.mark.parametrize("more", ["", "retention: {}\n"], ids=["its own", "another"])
def test_where_none_is_held_dagster_is_opened_only_for_a_storage_that_may_be_elsewhere(
    more: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Path] = []

    def open_instance(home: Path) -> dg.DagsterInstance:
        opened.append(home)
        return dg.DagsterInstance.from_config(str(home))

    monkeypatch.setattr(left_slots, "open_instance", open_instance)
    (tmp_path / "dagster.yaml").write_text(CONFIG.read_text() + more)
    assert free_left_slots(tmp_path) == []
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        instance.event_log_storage.initialize_concurrency_limit_to_default("gpu")
    assert free_left_slots(tmp_path) == []
    assert opened == [tmp_path] * 2 * bool(more)
