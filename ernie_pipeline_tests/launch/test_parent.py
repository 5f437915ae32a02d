"""Whoever is in between, a process whose step is gone ends."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ernie_pipeline.launch.parent import UNDER_TORCHRUN, myself
from ernie_pipeline_tests.launch.children import gone, wait_until

RANK = """
import json, os, sys, threading, time
from ernie_pipeline.launch.parent import end_with
threading.Thread(target=end_with, args=(json.loads(sys.argv[1]),), daemon=True).start()
print(os.getpid(), flush=True)
time.sleep(60)
"""
BETWEEN = "import subprocess, sys; subprocess.run([sys.executable, '-c', *sys.argv[1:]])"
STEP = """
import json, subprocess, sys
from ernie_pipeline.launch.parent import myself
subprocess.run([sys.executable, '-c', *sys.argv[1:], json.dumps(myself())])
"""


@pytest.mark.parametrize("ended", ["step", "between"])
def test_a_rank_ends_with_its_step_and_with_what_is_in_between(ended: str) -> None:
    parts = [BETWEEN, RANK, json.dumps(myself())] if ended == "between" else [STEP, BETWEEN, RANK]
    environment = {**os.environ, UNDER_TORCHRUN: "1"}
    command = [sys.executable, "-c", *parts]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        rank = int(process.stdout.readline())
        assert not gone(rank)
        process.kill()
        wait_until(lambda: gone(rank))


def test_another_process_with_the_step_s_number_is_not_the_step() -> None:
    step = {**myself(), "start": "1"}
    if not Path("/proc/self/stat").exists():
        pytest.skip("without /proc a number that was given again is not noticed")
    ended = subprocess.run([sys.executable, "-c", RANK, json.dumps(step)], stdout=subprocess.DEVNULL, timeout=30)
    assert ended.returncode == 1
