"""A place in a pool that a run has left behind, as one that was interrupted while a step was starting.

Dagster's daemon frees it, where there is one; without it the next run would wait for ever.
"""

import sqlite3
from contextlib import closing
from pathlib import Path

from ernie_pipeline.orchestration.up import OWN_CONFIG, open_instance


def free_left_slots(dagster_home: Path) -> list[str]:
    """Free what runs that have ended hold in the pools of this instance; their ids."""
    if _none_is_held(dagster_home):
        return []
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


def _none_is_held(dagster_home: Path) -> bool:
    """Whether it is certain without Dagster, whose import and opening take a second: with this package's dagster.yaml
    all is in SQLite files."""
    config, index = dagster_home / "dagster.yaml", dagster_home / "history" / "runs" / "index.db"
    if not config.is_file() or config.read_bytes() != OWN_CONFIG.read_bytes():
        return False
    if not index.exists():
        return True
    try:
        with closing(sqlite3.connect(f"{index.resolve().as_uri()}?mode=rw", uri=True)) as database:
            held = database.execute("SELECT count(*) FROM concurrency_slots WHERE run_id IS NOT NULL").fetchone()
    except sqlite3.Error:
        return False
    return bool(held[0] == 0)
