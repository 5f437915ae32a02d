"""A place in a pool that a run has left behind, as one that was interrupted while a step was starting.

Dagster's daemon frees it, where there is one; without it the next run would wait for ever.
"""

from pathlib import Path

from ernie_pipeline.orchestration.up import open_instance


def free_left_slots(dagster_home: Path) -> list[str]:
    """Free what runs that have ended hold in the pools of this instance; their ids."""
    with open_instance(dagster_home) as instance:
        storage = instance.event_log_storage
        if not storage.supports_global_concurrency_limits:
            return []
        holders = {
            slot.run_id
            for pool in storage.get_concurrency_keys()
            for slot in storage.get_concurrency_info(pool).claimed_slots
        }
        ended = sorted(each for each in holders if not (run := instance.get_run_by_id(each)) or run.is_finished)
        for each in ended:
            storage.free_concurrency_slots_for_run(each)
        return ended
