"""What the test of a run's end starts as a step: with a child as the launcher starts it, and others."""

import os
import subprocess
import sys
import time
from pathlib import Path

from ernie_pipeline.launch.parent import end_with_run

SAVES = """
import os, signal, subprocess, sys, time
from pathlib import Path
def save(*_):
    Path(sys.argv[1], "saved").touch()
signal.signal(signal.SIGTERM, save)  # and does not end
helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)"], start_new_session=True)
Path(sys.argv[1], "pid-helper").write_text(str(helper.pid))
Path(sys.argv[1], "pid-child").write_text(str(os.getpid()))
while True:
    time.sleep(1)
"""


def step(folder: str) -> None:
    """A step's process that would work for minutes."""
    end_with_run()
    end_with_run()  # each asset that a process builds asks for it
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)"])
    subprocess.Popen([sys.executable, "-c", SAVES, folder], start_new_session=True)
    Path(folder, "pid-other").write_text(str(other.pid))
    Path(folder, "pid-step").write_text(str(os.getpid()))
    time.sleep(120)
