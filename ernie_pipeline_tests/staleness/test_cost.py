"""What a manifest and the history say of what an artifact cost."""

from pathlib import Path

import pytest

from ernie_pipeline.staleness.cost import Cost, cost_of
from ernie_pipeline.store.artifacts import ArtifactStore
from ernie_pipeline.store.history import builds
from ernie_pipeline_tests.staleness.chains import chain_of, constant, walk
from ernie_pipeline_tests.staleness.jobs import answered, sampled, spend, trained, worked


def cost(store: ArtifactStore, **write: object) -> Cost:
    """Of the only stage that is given, as its manifest has it."""
    [name] = write
    found = cost_of(walk(chain_of(store), **write)[name].manifest)  # type: ignore[arg-type]
    assert found
    return found


def test_a_training_s_steps_are_told_from_what_it_took_besides(store: ArtifactStore) -> None:
    found = cost(store, qlora_adapter=trained(100, 60, samples=800, rows=400, gpus=2))
    assert (found.seconds, found.gpu_seconds, found.jobs, found.device) == (200, 200, 1, "card")
    assert (found.unit, found.amount, found.made, found.rows) == ("samples", 800, 800, 400)
    assert (found.work_s, found.overhead_s) == (120, 80)


def test_on_a_cpu_there_are_no_gpu_seconds(store: ArtifactStore) -> None:
    found = cost(store, base_evaluation=answered(30, 20, made=40, kept=10))
    assert (found.seconds, found.gpu_seconds) == (30, 0)
    assert (found.unit, found.amount, found.made, found.work_s, found.overhead_s) == ("answers", 50, 40, 20, 10)


def test_attempts_are_what_solutions_count(store: ArtifactStore) -> None:
    found = cost(store, base_evaluation=sampled(30, 20, problems=5, samples=8, gpus=1))
    assert (found.unit, found.amount, found.made, found.rows) == ("answers", 40, 40, 5)


def test_what_was_spent_before_a_kill_counts_and_the_last_job_gives_the_pace(store: ArtifactStore) -> None:
    chain = chain_of(store)
    walk(chain, base_evaluation=constant)
    adapter = chain.artifact("qlora_adapter").manifest["fingerprint"]
    store.remove("qlora_adapter", adapter)
    spend(store.unfinished("qlora_adapter", adapter), 50)
    evaluation = chain.artifact("base_evaluation").manifest["fingerprint"]
    store.remove("base_evaluation", evaluation)
    spend(store.unfinished("base_evaluation", evaluation), 50)

    again = chain_of(store)
    write = {"qlora_adapter": trained(30, 60, 800, 400), "base_evaluation": answered(30, 20, made=10, kept=30)}
    found = walk(again, **write)
    training, answers = (cost_of(found[name].manifest) for name in write)
    assert training
    assert answers
    assert (training.seconds, training.jobs, training.work_s, training.overhead_s) == (80, 2, 60, 10)
    assert (answers.seconds, answers.jobs, answers.made, answers.work_s, answers.overhead_s) == (80, 2, 10, 20, 10)
    assert not store.unfinished("qlora_adapter", adapter).exists()


def test_what_no_job_made_has_no_cost_and_its_manifest_the_keys_it_had(store: ArtifactStore) -> None:
    manifest = walk(chain_of(store))["math_split"].manifest
    assert "cost" not in manifest
    assert cost_of(manifest) is None


def test_what_nothing_was_reported_of_has_its_seconds(store: ArtifactStore) -> None:
    found = cost(store, qlora_adapter=worked(7))
    assert (found.seconds, found.made, found.overhead_s) == (7, 0, 7)


def test_the_history_keeps_it_when_the_artifact_is_gone_and_the_data_version_does_not_know_it(
    store: ArtifactStore, tmp_path: Path
) -> None:
    manifests = [
        walk(chain_of(each), qlora_adapter=trained(seconds, 6, 80, 40))["qlora_adapter"].manifest
        for each, seconds in ((store, 10), (ArtifactStore(tmp_path / "other"), 20))
    ]
    assert manifests[0]["data_version"] == manifests[1]["data_version"]
    store.remove("qlora_adapter", manifests[0]["fingerprint"])
    [build] = builds(store, "qlora_adapter")
    assert build["cost"] == manifests[0]["cost"]


@pytest.mark.parametrize("said", [{}, [], "much", {"seconds": "many"}, {"seconds": 1, "gpu_seconds": 1, "jobs": None}])
def test_what_cannot_be_read_is_no_cost(said: object) -> None:
    assert cost_of({"cost": said}) is None
