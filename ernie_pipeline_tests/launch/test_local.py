"""The local launcher with real child processes: what they say arrives, and however they end, the step knows why."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
import pytest

from ernie_pipeline.assets.report import told_in_one_sentence
from ernie_pipeline.launch.local import run_module


@pytest.fixture
def run_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run a child whose work is the given lines of Python, inside a real Dagster step; (result, instance)."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def run(
        work: str, on_progress: Callable[[dict[str, Any]], None] = lambda _: None, **limits: Any
    ) -> tuple[dg.ExecuteInProcessResult, dg.DagsterInstance]:
        (tmp_path / "child_of_test.py").write_text(
            "import os, signal, time\n"
            "from ernie_pipeline.errors import PipelineError\n"
            "from ernie_pipeline.launch.child import run_job\n"
            f"def work(job, report):\n{textwrap.indent(textwrap.dedent(work), '    ')}\n"
            "run_job(work)\n"
        )
        allowed = {"threads": 1, "memory_gib": None, "time_limit_s": None} | limits

        @dg.asset
        def parent(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
            with told_in_one_sentence():
                job = {"number": 42, "out": str(tmp_path)}
                run_module(context, "child_of_test", job, on_progress=on_progress, **allowed)
            return dg.MaterializeResult()

        instance = dg.DagsterInstance.ephemeral()
        return dg.materialize([parent], instance=instance, raise_on_error=False), instance

    return run


def failure(result: dg.ExecuteInProcessResult) -> str:
    [event] = result.get_step_failure_events()
    assert event.step_failure_data.user_failure_data is not None, event.step_failure_data.error
    return str(event.step_failure_data.user_failure_data.description)


def test_log_lines_and_progress_arrive_and_the_job_is_handed_over(run_child: Any) -> None:
    heard: list[dict[str, Any]] = []
    result, instance = run_child("report(f'number {job[\"number\"]}', {'step': 1})", heard.append)
    assert result.success
    assert heard == [{"step": 1}]
    messages = [record.user_message for record in instance.all_logs(result.run_id)]
    assert "number 42" in messages


def test_progress_is_heard_while_the_child_still_runs(run_child: Any, tmp_path: Path) -> None:
    """The child waits for a file that the parent writes on hearing its first progress."""
    heard = tmp_path / "heard"
    work = f"""
        report('first', {{'step': 1}})
        deadline = time.monotonic() + 20
        while not os.path.exists({str(heard)!r}):
            if time.monotonic() > deadline:
                raise PipelineError('nobody heard')
            time.sleep(0.05)
    """
    result, _ = run_child(work, lambda _: heard.touch())
    assert result.success


def test_the_child_s_own_sentence_is_the_step_s_failure(run_child: Any) -> None:
    result, _ = run_child("raise PipelineError('row 7 is blue; paint it')")
    assert failure(result) == "row 7 is blue; paint it"


def test_a_full_disk_in_the_child_is_told_with_the_place(run_child: Any, tmp_path: Path) -> None:
    result, _ = run_child("raise OSError(28, 'No space left on device')")
    assert failure(result).startswith(f"the disk that holds {tmp_path} is full")


def test_a_killed_child_is_told_as_killed(run_child: Any) -> None:
    result, _ = run_child("os.kill(os.getpid(), signal.SIGKILL)")
    assert "child_of_test was ended by signal 9" in failure(result)
    assert "run again" in failure(result)


def test_a_crash_points_to_its_traceback(run_child: Any) -> None:
    result, _ = run_child("1 / 0")
    assert "failed with exit status 1" in failure(result)


def test_the_time_limit_ends_the_child(run_child: Any) -> None:
    start = time.monotonic()
    result, _ = run_child("time.sleep(60)", time_limit_s=2)
    assert "gpu.time_limit_s = 2" in failure(result)
    assert time.monotonic() - start < 30
    assert not [p for p in psutil.Process().children(recursive=True) if "child_of_test" in " ".join(p.cmdline())]


def test_the_memory_limit_ends_the_child(run_child: Any) -> None:
    result, _ = run_child("hog = bytearray(600 * 2**20); time.sleep(60)", memory_gib=0.5)
    assert "gpu.memory_gib = 0.5" in failure(result)


def test_a_step_killed_outright_takes_its_child_with_it(tmp_path: Path) -> None:
    """SIGKILL leaves the step no moment to end its child, which must notice by itself."""
    child, parent = tmp_path / "child_of_test.py", tmp_path / "parent.py"
    child.write_text(
        "import os, time, pathlib\nfrom ernie_pipeline.launch.child import run_job\n"
        "def work(job, report):\n"
        "    pathlib.Path(job['pid']).write_text(str(os.getpid()))\n    time.sleep(120)\nrun_job(work)\n"
    )
    parent.write_text(
        "import dagster as dg\nfrom ernie_pipeline.launch.local import run_module\n"
        "@dg.asset\ndef a(context: dg.AssetExecutionContext) -> dg.MaterializeResult:\n"
        f"    run_module(context, 'child_of_test', {{'pid': {str(tmp_path / 'pid')!r}}}, threads=1, memory_gib=None,\n"
        "               time_limit_s=None, on_progress=print)\n    return dg.MaterializeResult()\n"
        "dg.materialize([a])\n"
    )
    step = subprocess.Popen(
        [sys.executable, str(parent)], env={**os.environ, "PYTHONPATH": str(tmp_path)}, stderr=subprocess.DEVNULL
    )
    wait_until((tmp_path / "pid").exists)
    pid = int((tmp_path / "pid").read_text())
    step.kill()
    step.wait()
    wait_until(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)


def wait_until(done: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.1)


def test_a_cancelled_step_leaves_no_child_behind(run_child: Any) -> None:
    """Dagster cancels with SIGINT."""
    threading.Timer(3, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    start = time.monotonic()
    result, _ = run_child("time.sleep(60)")
    assert not result.success
    assert time.monotonic() - start < 30
    assert not [p for p in psutil.Process().children(recursive=True) if "child_of_test" in " ".join(p.cmdline())]
