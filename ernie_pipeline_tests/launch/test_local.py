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
import pytest

from ernie_pipeline.launch import ending
from ernie_pipeline.launch.detached import messages
from ernie_pipeline.launch.launcher import Launch
from ernie_pipeline.launch.listener import Listener
from ernie_pipeline.launch.local import LocalLauncher
from ernie_pipeline.orchestration.report import pipeline_errors_as_failures
from ernie_pipeline_tests.launch.children import ChildJob, gone, left_of, python_path, wait_until, work_in

CHILD = f"child_of_test_{os.getpid()}"


@pytest.fixture
def run_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run a child whose work is the given lines of Python, inside a real Dagster step; (result, instance)."""
    monkeypatch.setenv("PYTHONPATH", python_path(tmp_path))

    def run(
        work: str,
        on_progress: Callable[[dict[str, Any]], None] = lambda _: None,
        on_failure: Callable[[], None] = lambda: None,
        **limits: Any,
    ) -> tuple[dg.ExecuteInProcessResult, dg.DagsterInstance]:
        (tmp_path / f"{CHILD}.py").write_text(
            "import os, signal, time\n"
            "from ernie_pipeline.utils.errors import PipelineError\n"
            f"def work(job, report):\n{textwrap.indent(textwrap.dedent(work), '    ')}\n"
        )
        allowed = {"threads": 1, "memory_gib": None, "time_limit_s": None} | limits

        @dg.asset
        def parent(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
            with pipeline_errors_as_failures():
                launch = Launch(work_in(CHILD), ChildJob(out=tmp_path), **allowed)
                try:
                    LocalLauncher().run(context, launch, on_progress)
                finally:
                    on_failure()
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
    result, instance = run_child("report(f'number {job.number}', {'step': 1})", heard.append)
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


@pytest.mark.parametrize(
    "work",
    ["with open('/dev/full', 'w') as rows:\n    rows.write('row')", "raise PipelineError('row 7 is blue')", "pass"],
)
def test_where_the_message_file_s_disk_is_full_too_the_exit_status_tells(
    run_child: Any, tmp_path: Path, work: str, capfd: Any
) -> None:
    """Even a row file that fails when it is closed, an error that cannot be written, and the last message of all."""
    result, _ = run_child(
        "from dagster_pipes import PipesFileMessageWriterChannel\n"
        "def full(*_): raise OSError(28, 'No space left on device')\n"
        f"PipesFileMessageWriterChannel.write_message = full\n{work}"
    )
    assert failure(result).startswith(f"the disk that holds {tmp_path} is full")
    if "blue" in work:
        assert "row 7 is blue" in capfd.readouterr().err


class Away:
    """Dagster's storage of events, which cannot be reached for a while."""

    def __init__(self, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch):
        self.away, store = False, type(instance.event_log_storage).store_event

        def stored(storage: Any, event: Any) -> None:
            if self.away:
                raise ConnectionError("the database is away")
            store(storage, event)

        monkeypatch.setattr(type(instance.event_log_storage), "store_event", stored)


@pytest.mark.parametrize("comes_back", [True, False])
def test_a_storage_that_is_away_loses_neither_lines_nor_the_child_s_sentence(
    run_child: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, comes_back: bool
) -> None:
    monkeypatch.setattr(messages, "END_S", 1.0)
    with dg.DagsterInstance.ephemeral() as instance:
        storage = Away(instance, monkeypatch)

    def on_progress(values: dict[str, Any]) -> None:
        heard.append(values["step"])
        if values["step"] == 1:
            storage.away = True
            (tmp_path / "away").touch()
        if values["step"] == 3 and comes_back:
            storage.away = False

    heard: list[int] = []
    result, instance = run_child(
        "report('one', {'step': 1})\n"
        f"while not os.path.exists({str(tmp_path / 'away')!r}): time.sleep(0.1)\n"
        "report('two', {'step': 2})\n"
        "time.sleep(1)\n"
        "report('three', {'step': 3})\n"
        "time.sleep(1)\n"
        "raise PipelineError('row 7 is blue; paint it')",
        on_progress,
        on_failure=lambda: setattr(storage, "away", False),
    )
    assert failure(result) == "row 7 is blue; paint it"
    assert heard == [1, 2, 3]
    lines = [entry.user_message for entry in instance.all_logs(result.run_id)]
    assert ("two" in lines) is comes_back
    assert "one" in lines


def test_progress_that_is_not_taken_waits(tmp_path: Path) -> None:
    class Session:
        def get_custom_messages(self) -> list[Any]:
            return [{"progress": {"step": 1}}, {"error": "row 7 is blue"}, {"progress": {"step": 2}}]

    def on_progress(values: dict[str, Any]) -> None:
        if away:
            raise ConnectionError("the database is away")
        heard.append(values["step"])

    away, heard = [True], list[int]()
    listener = Listener(tmp_path, on_progress)
    listener.session = Session()  # type: ignore[assignment]
    listener.listen()
    assert (listener.failure, heard) == ("row 7 is blue", [])
    away.clear()
    listener.listen()
    assert heard == [1, 2]


def test_a_killed_child_is_told_as_killed(run_child: Any) -> None:
    result, _ = run_child("os.kill(os.getpid(), signal.SIGKILL)")
    assert f"{CHILD} was ended by signal 9" in failure(result)
    assert "run again" in failure(result)


def test_a_crash_points_to_its_traceback(run_child: Any) -> None:
    result, _ = run_child("1 / 0")
    assert "failed with exit status 1" in failure(result)


def test_the_memory_limit_ends_the_child(run_child: Any) -> None:
    result, _ = run_child("hog = bytearray(600 * 2**20); time.sleep(60)", memory_gib=0.5)
    assert "gpu.memory_gib = 0.5" in failure(result)


def test_a_step_killed_outright_takes_its_child_with_it(tmp_path: Path) -> None:
    """SIGKILL leaves the step no moment to end its child, which must notice by itself."""
    child, parent = tmp_path / f"{CHILD}.py", tmp_path / "parent.py"
    child.write_text(
        "import os, time\n"
        "def work(job, report):\n"
        "    (job.out / 'pid').write_text(str(os.getpid()))\n    time.sleep(120)\n"
    )
    parent.write_text(
        "from pathlib import Path\nimport dagster as dg\nfrom ernie_pipeline.launch.launcher import Launch\n"
        "from ernie_pipeline.launch.local import LocalLauncher\n"
        "from ernie_pipeline_tests.launch.children import ChildJob, work_in\n"
        "@dg.asset\ndef a(context: dg.AssetExecutionContext) -> dg.MaterializeResult:\n"
        f"    launch = Launch(work_in({CHILD!r}), ChildJob(out=Path({str(tmp_path)!r})), threads=1)\n"
        "    LocalLauncher().run(context, launch)\n"
        "    return dg.MaterializeResult()\n"
        "dg.materialize([a])\n"
    )
    step = subprocess.Popen(
        [sys.executable, "-m", "parent"],
        env={**os.environ, "PYTHONPATH": python_path(tmp_path)},
        stderr=subprocess.DEVNULL,
    )
    wait_until((tmp_path / "pid").exists)
    pid = int((tmp_path / "pid").read_text())
    step.kill()
    step.wait()
    wait_until(lambda: gone(pid))


SAVE = """
    from ernie_pipeline.training.stop import StopSignals
    with StopSignals() as stop:
        report('training', {'step': 1})
        while not stop.requested:
            time.sleep(0.02)
        with open(f"{job.out}/saved", 'w') as file:
            for number in range(5):
                file.write(f'{number}\\n')
                file.flush()
                time.sleep(0.1)
    raise PipelineError(f'stopped by {stop.requested} after step 1')
"""
SAVED = "".join(f"{number}\n" for number in range(5))


@pytest.mark.parametrize("signals", [[signal.SIGINT], [signal.SIGTERM], [signal.SIGINT, signal.SIGINT]])
def test_an_interrupted_step_lets_its_child_save(run_child: Any, tmp_path: Path, signals: list[signal.Signals]) -> None:
    """Twice: as Ctrl-C reaches a step from the terminal, and by way of the executor."""

    def interrupt(values: dict[str, Any]) -> None:
        for delay, number in enumerate(signals):
            threading.Timer(0.1 + 0.2 * delay, lambda number=number: os.kill(os.getpid(), number)).start()

    result, instance = run_child(SAVE, interrupt)
    assert (tmp_path / "saved").read_text() == SAVED
    [event] = result.get_step_failure_events()
    assert event.step_failure_data.error.cls_name == "DagsterExecutionInterruptedError"
    assert "stopped by SIGTERM after step 1" in [log.user_message for log in instance.all_logs(result.run_id)]
    assert left_of(CHILD) == []


def test_the_time_limit_lets_the_child_save_and_tells_what_it_says(run_child: Any, tmp_path: Path) -> None:
    result, _ = run_child(SAVE, time_limit_s=3)
    assert "gpu.time_limit_s = 3" in failure(result)
    assert failure(result).endswith(" (stopped by SIGTERM after step 1)")
    assert (tmp_path / "saved").read_text() == SAVED


def test_what_asks_it_to_stop_lets_it_save_and_tells_what_it_says(run_child: Any, tmp_path: Path) -> None:
    started = threading.Event()
    result, _ = run_child(
        SAVE, lambda _: started.set(), stop_if=lambda: "it costs too much" if started.is_set() else ""
    )
    assert failure(result) == "it costs too much (stopped by SIGTERM after step 1)"
    assert (tmp_path / "saved").read_text() == SAVED


STUBBORN = f"""
    import subprocess, sys
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sleep = "import time; time.sleep(60) # {CHILD}'s"
    for alone in (False, True):
        subprocess.Popen([sys.executable, "-c", sleep], start_new_session=alone)
    report('training', {{'step': 1}})
    time.sleep(60)
"""


def test_after_its_grace_it_is_killed_with_all_that_it_started(run_child: Any) -> None:
    start = time.monotonic()
    result, _ = run_child(STUBBORN, time_limit_s=2, stop_grace_s=0.5)
    assert failure(result) == (
        f"{CHILD} ran past gpu.time_limit_s = 2 and was ended; raise the limit, or run again: it goes on from its "
        "last checkpoint, if it wrote one"
    )
    assert time.monotonic() - start < 15
    wait_until(lambda: left_of(CHILD) == [])


def test_a_second_interrupt_later_on_ends_the_waiting(run_child: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ending, "SAME_INTERRUPT_S", 0.5)

    def interrupt(values: dict[str, Any]) -> None:
        for delay in (0.1, 1.1):
            threading.Timer(delay, lambda: os.kill(os.getpid(), signal.SIGINT)).start()

    start = time.monotonic()
    result, _ = run_child(STUBBORN, interrupt, stop_grace_s=60)
    assert not result.success
    assert time.monotonic() - start < 15
    wait_until(lambda: left_of(CHILD) == [])


def test_what_a_child_that_ends_by_itself_leaves_running_is_ended(run_child: Any) -> None:
    result, _ = run_child(STUBBORN.replace("(False, True)", "(False,)").replace("time.sleep(60)\n", "pass\n"))
    assert result.success
    wait_until(lambda: left_of(CHILD) == [])
