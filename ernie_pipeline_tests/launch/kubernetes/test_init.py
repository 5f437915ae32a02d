"""The first process of a container: what a kernel keeps from process 1, and what it expects of it."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ernie_pipeline_tests.launch.children import wait_until

INIT = [sys.executable, "-m", "ernie_pipeline.launch.kubernetes.init"]
NAMESPACE = ["unshare", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc"]
SAVES = """
import os, signal, sys, time
from pathlib import Path
place = Path(sys.argv[1])
def save(*_):
    (place / "saved").write_text(str(os.getppid()))
    sys.exit(3)
signal.signal(signal.SIGTERM, save)
(place / "ready").touch()
time.sleep(60)
"""


def can_make_namespaces() -> bool:
    try:
        return subprocess.run([*NAMESPACE, "true"], capture_output=True).returncode == 0
    except OSError:
        return False


@pytest.mark.parametrize("code", [0, 7])
def test_it_ends_as_its_command_does(code: int) -> None:
    assert subprocess.run([*INIT, sys.executable, "-c", f"raise SystemExit({code})"]).returncode == code


def test_it_ends_with_128_and_the_number_of_a_signal() -> None:
    assert subprocess.run([*INIT, "sh", "-c", "kill -9 $$"]).returncode == 137


def test_a_command_that_is_not_there_is_said() -> None:
    done = subprocess.run([*INIT, "/no/such"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (127, "/no/such cannot be started: No such file or directory\n")


@pytest.mark.skipif(not can_make_namespaces(), reason="no PID namespaces here")
def test_as_process_1_it_hands_sigterm_on_and_ends_with_the_command(tmp_path: Path) -> None:
    log = tmp_path / "1"
    with subprocess.Popen(
        [*NAMESPACE, "sh", "-c", f'echo $$ > {log}; exec "$@"', "sh", *INIT, sys.executable, "-c", SAVES, str(tmp_path)]
    ) as outer:
        wait_until((tmp_path / "ready").exists)
        assert log.read_text() == "1\n"
        [inner] = Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text().split()
        subprocess.run(["kill", "-TERM", inner], check=True)
        assert outer.wait(20) == 3
    assert (tmp_path / "saved").read_text() == "1", "its parent is process 1"


@pytest.mark.skipif(not can_make_namespaces(), reason="no PID namespaces here")
def test_a_command_without_a_handler_ends_at_once_and_would_not_as_process_1(tmp_path: Path) -> None:
    for init, expected in (([], None), (INIT, 128 + signal.SIGTERM)):
        ready = tmp_path / f"ready{len(init)}"
        sleep = [sys.executable, "-c", f"import time; open({str(ready)!r}, 'w'); time.sleep(60)"]
        with subprocess.Popen([*NAMESPACE, *init, *sleep]) as outer:
            wait_until(ready.exists)
            [inner] = Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text().split()
            subprocess.run(["kill", "-TERM", inner], check=True)
            if expected is None:
                time.sleep(1)
                assert outer.poll() is None, "the kernel keeps it from process 1"
                outer.kill()
            else:
                assert outer.wait(20) == expected
