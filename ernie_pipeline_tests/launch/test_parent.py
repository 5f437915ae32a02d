"""Whoever is in between, a process whose step is gone ends."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ernie_pipeline.launch.parent import UNDER_TORCHRUN, Parent, this_process
from ernie_pipeline_tests.launch.children import gone, wait_until

RANK = """
import os, sys, threading, time
from ernie_pipeline.launch.parent import Parent, end_with
threading.Thread(target=end_with, args=(Parent.model_validate_json(sys.argv[1]),), daemon=True).start()
print(os.getpid(), flush=True)
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
        rank = int(process.stdout.readline())
        assert not gone(rank)
        process.kill()
        wait_until(lambda: gone(rank))


def test_another_process_with_the_step_s_number_is_not_the_step() -> None:
    step = Parent(pid=os.getpid(), start="1")
    if not Path("/proc/self/stat").exists():
        pytest.skip("without /proc a number that was given again is not noticed")
    ended = subprocess.run([sys.executable, "-c", RANK, step.model_dump_json()], stdout=subprocess.DEVNULL, timeout=30)
    assert ended.returncode == 1
