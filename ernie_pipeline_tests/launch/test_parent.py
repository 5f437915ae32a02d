"""Whoever is in between, a process whose step is gone ends."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ernie_pipeline.launch.parent import RUN_PROCESS, UNDER_TORCHRUN, Parent, end_with_run, this_process
from ernie_pipeline_tests.launch.children import gone, wait_until

RANK = """
import os, subprocess, sys, threading, time
from ernie_pipeline.launch.parent import Parent, end_with
helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
threading.Thread(target=end_with, args=(Parent.model_validate_json(sys.argv[1]),), daemon=True).start()
print(os.getpid(), helper.pid, flush=True)
time.sleep(60)
"""
BETWEEN = "import subprocess, sys; subprocess.run([sys.executable, '-c', *sys.argv[1:]])"
STEP = """
import subprocess, sys
from ernie_pipeline.launch.parent import this_process
subprocess.run([sys.executable, '-c', *sys.argv[1:], this_process().model_dump_json()])
"""


@pytest.mark.parametrize("ended", ["step", "between"])
def test_a_rank_ends_with_its_step_and_with_what_is_in_between(ended: str) -> None:
    parts = [BETWEEN, RANK, this_process().model_dump_json()] if ended == "between" else [STEP, BETWEEN, RANK]
    environment = {**os.environ, UNDER_TORCHRUN: "1"}
    command = [sys.executable, "-c", *parts]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        rank, helper = map(int, process.stdout.readline().split())
        assert not gone(rank)
        assert not gone(helper)
        process.kill()
        wait_until(lambda: gone(rank) and gone(helper), seconds=15)


def test_another_process_with_the_step_s_number_is_not_the_step() -> None:
    step = Parent(pid=os.getpid(), start="1")
    if not Path("/proc/self/stat").exists():
        pytest.skip("without /proc a number that was given again is not noticed")
    ended = subprocess.run([sys.executable, "-c", RANK, step.model_dump_json()], stdout=subprocess.DEVNULL, timeout=30)
    assert ended.returncode == 1


RUN = """
import multiprocessing, os, sys, time
from ernie_pipeline.launch.parent import tell_steps_who_runs_them
from ernie_pipeline_tests.launch.steps import step
tell_steps_who_runs_them()
# as Dagster's executor does, by each way of starting a process
process = multiprocessing.get_context(sys.argv[1]).Process(target=step, args=(sys.argv[2],))
process.start()
process.join()
"""


@pytest.mark.parametrize("way", ["forkserver", "spawn", "fork"])
def test_a_step_and_all_that_it_started_end_with_the_run_s_own_process(way: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", RUN, way, str(tmp_path)]
    run = subprocess.Popen(command, cwd=Path(__file__).parents[2])
    wait_until(lambda: len(list(tmp_path.glob("pid-*"))) == 4)
    pids = [int(file.read_text()) for file in tmp_path.glob("pid-*")]
    assert not any(gone(pid) for pid in pids)
    run.kill()
    run.wait()
    wait_until(lambda: all(gone(pid) for pid in pids), seconds=15)
    assert (tmp_path / "saved").exists()  # the launcher's child was asked before it was killed


def test_the_run_s_own_process_and_one_without_a_run_watch_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    before = threading.active_count()
    monkeypatch.delenv(RUN_PROCESS, raising=False)
    end_with_run()
    monkeypatch.setenv(RUN_PROCESS, this_process().model_dump_json())
    end_with_run()
    assert threading.active_count() == before


def test_a_run_that_was_gone_before_its_step_looked_ends_it() -> None:
    program = "import time; from ernie_pipeline.launch.parent import end_with_run; end_with_run(); time.sleep(60)"
    gone_run = Parent(pid=2**22 - 1, start="1").model_dump_json()
    environment = {**os.environ, RUN_PROCESS: gone_run}
    assert subprocess.run([sys.executable, "-c", program], env=environment, timeout=30).returncode == 1
