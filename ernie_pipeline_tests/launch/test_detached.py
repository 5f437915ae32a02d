"""What a job that outlives its step and the steps that follow it know of each other: files, and nothing else."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dagster_pipes import PIPES_PROTOCOL_VERSION_FIELD

from ernie_pipeline.launch.detached.engine import Status
from ernie_pipeline.launch.detached.life import LOST, SUPERSEDED, end_cut_line, make_sealed
from ernie_pipeline.launch.detached.messages import MessageFile
from ernie_pipeline.launch.detached.place import Attempt, Place
from ernie_pipeline.launch.envelope import write_job
from ernie_pipeline_tests.launch.children import ChildJob, python_path, wait_until, work_in

WORK = f"detached_of_test_{os.getpid()}"
WAITING = """
import time
from pathlib import Path
def work(job, report):
    report("at work", {})
    (job.out / "made").write_text("whole")
    while not Path(f"{job.number}").exists():
        time.sleep(0.02)
"""


def start(place: Place, attempt: Attempt, code: str = WAITING) -> "subprocess.Popen[bytes]":
    """A child at work on the place's job; as it is, it ends once the file `42` is beside it."""
    (place.folder.parent / f"{WORK}.py").write_text(code)
    job = write_job(place.folder, work_in(WORK), ChildJob(out=Path("/nowhere")), attempt=attempt)
    environment = {"PYTHONPATH": python_path(place.folder.parent)}
    command = [sys.executable, "-m", "ernie_pipeline.launch.child", str(job)]
    return subprocess.Popen(command, env=environment, cwd=place.folder.parent, stdout=subprocess.DEVNULL)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "job")


def test_a_job_fills_a_sealed_folder_of_its_own_and_beats_meanwhile(place: Place, tmp_path: Path) -> None:
    with start(place, place.begin(anew=True)) as child:
        wait_until(lambda: place.last_beat > 0)
        before = place.last_beat
        wait_until(lambda: place.last_beat != before)
        assert not place.sealed
        assert not place.take_over(tmp_path)
        (tmp_path / "42").touch()
    assert child.returncode == 0
    out = tmp_path / "out"
    out.mkdir()
    assert place.take_over(out)
    assert {file.name: file.read_text() for file in out.iterdir()} == {"made": "whole"}
    (place.out / "made").unlink()
    assert not place.take_over(out), "what is damaged is not taken over"
    assert (out / "made").read_text() == "whole"


def test_a_process_that_another_has_taken_the_job_from_ends_and_seals_nothing(place: Place, tmp_path: Path) -> None:
    with start(place, place.begin(anew=True)) as lost:
        wait_until(lambda: place.last_beat > 0)
        place.begin(anew=False)
        assert lost.wait(20) == SUPERSEDED
    assert not place.sealed


def test_a_home_that_a_newer_version_has_written_in_since_the_step_looked_is_left_alone(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    place = Place(tmp_path / "store" / ".unfinished" / "stage" / "f00d" / "jobs" / "work")
    attempt = place.begin(anew=True)
    (tmp_path / "store" / ".format").write_text("7\n")
    with start(place, attempt) as child:
        assert child.wait(20) == 1
    assert f"{tmp_path}/store/.format says that this home is of format 7" in capfd.readouterr().err
    assert not place.out.exists()


def test_a_process_that_was_paused_while_another_took_the_job_seals_nothing(place: Place) -> None:
    """It finds out when it is about to seal, whenever that is."""
    code = (
        "import sys\nfrom pathlib import Path\nfrom ernie_pipeline.launch.detached.life import make_sealed\n"
        "from ernie_pipeline.launch.detached.place import Attempt, Place\n"
        "folder = Path(sys.argv[1])\nattempt = Place(folder).begin(anew=True)\n"
        "make_sealed(attempt, 'work', lambda out: Place(folder).begin(anew=False))\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(place.folder)]).returncode == SUPERSEDED
    assert not place.sealed


def test_asked_to_stop_a_job_gets_a_signal(place: Place) -> None:
    with start(place, place.begin(anew=True)) as child:
        wait_until(lambda: place.last_beat > 0)
        place.ask_to_stop()
        assert child.wait(20) == -15
    place.begin(anew=False)
    assert not place.stop_asked, "the next one is not asked"


class Heard:
    """In the place of a Pipes session: what is handed on to it."""

    def __init__(self) -> None:
        self.messages: list[Any] = []

    def handle_message(self, message: Any) -> None:
        self.messages.append(message["params"] if message["method"] == "log" else message["method"])


def test_messages_are_read_from_the_first_one_whole_lines_only_and_one_end(tmp_path: Path) -> None:
    file, heard = tmp_path / "messages.jsonl", Heard()

    def line(method: str, params: Any = None) -> bytes:
        return json.dumps({PIPES_PROTOCOL_VERSION_FIELD: "0.1", "method": method, "params": params}).encode() + b"\n"

    def write(lines: bytes) -> None:
        with file.open("ab") as stream:
            stream.write(lines)

    reader = MessageFile(file)
    with reader.read_messages(heard):  # type: ignore[arg-type]
        time.sleep(0.3)  # it is not there yet
        write(line("opened") + line("log", 1) + line("closed") + line("log", 2)[:20])
        wait_until(lambda: heard.messages == ["opened", 1] and reader.closed)
        end_cut_line(file)  # by the next attempt
        write(line("opened") + line("log", 3) + line("closed"))
    assert heard.messages == ["opened", 1, 3, "closed"]


def test_what_an_earlier_attempt_said_is_not_read_before_it_is_clear_whose_messages_count(tmp_path: Path) -> None:
    """Its sentence of failure would be the next one's."""
    file, heard = tmp_path / "messages.jsonl", Heard()
    line = {PIPES_PROTOCOL_VERSION_FIELD: "0.1", "method": "log", "params": "of the earlier one"}
    file.write_text(json.dumps(line) + "\n")
    reader = MessageFile(file)
    reader.paused = True
    with reader.read_messages(heard):  # type: ignore[arg-type]
        time.sleep(0.5)
        file.unlink()
        reader.paused = False
        file.write_text(json.dumps({**line, "params": "of this one"}) + "\n")
    assert heard.messages == ["of this one"]


STOPPED = """
from pathlib import Path
import time
from ernie_pipeline.training.stop import StopSignals
from ernie_pipeline.utils.errors import Stopped
def work(job, report):
    with StopSignals() as stop:
        Path("ready").touch()
        while not stop.requested:
            time.sleep(0.02)
    raise Stopped("saved after step 5")
"""


@pytest.mark.parametrize("asked", [False, True])
def test_a_signal_of_no_step_s_loses_a_job_and_one_that_a_step_asked_for_fails_it(place: Place, asked: bool) -> None:
    """A machine that is taken sends SIGTERM as a step does: what was saved goes on elsewhere, or is kept."""
    with start(place, place.begin(anew=True), STOPPED) as child:
        wait_until((place.folder.parent / "ready").exists)
        if asked:
            place.ask_to_stop()
        else:
            child.terminate()
        assert child.wait(20) == (1 if asked else LOST)


@pytest.mark.parametrize(
    ("exit_status", "lost"), [(None, True), (-9, True), (137, True), (LOST, True), (1, False), (0, False)]
)
def test_what_was_taken_from_outside_is_lost_and_what_failed_by_itself_is_not(
    exit_status: int | None, lost: bool
) -> None:
    assert Status("ended", exit_status=exit_status).is_lost is lost


def test_a_sealed_folder_is_left_by_a_work_that_is_done_only(place: Place) -> None:
    def fail(out: Path) -> None:
        (out / "half").touch()
        raise ValueError("half")

    with pytest.raises(ValueError, match="half"):
        make_sealed(place.begin(anew=True), "work", fail)
    assert not place.sealed
    assert not [path for path in place.folder.rglob("*") if path.name == "half"]


@pytest.mark.parametrize("occupy", [os.mkfifo, os.mkdir])
def test_places_of_a_job_that_are_occupied_stop_no_attempt(place: Place, occupy: Callable[[Path], None]) -> None:
    place.folder.mkdir()
    for name in ("attempt", ".attempt", "stop", "messages.jsonl", "error-x", "out"):
        occupy(place.folder / name)
    assert place.attempt == ""
    attempt = place.begin(anew=True)
    assert place.attempt == attempt.name
    assert not place.stop_asked


@pytest.mark.parametrize("line", ["[" * 100_000, "3", '"x"', "{}", f'["{PIPES_PROTOCOL_VERSION_FIELD}"]'])
def test_a_line_that_is_no_message_is_passed_over(tmp_path: Path, line: str) -> None:
    def said(method: str) -> str:
        return json.dumps({PIPES_PROTOCOL_VERSION_FIELD: "0.1", "method": method, "params": {}})

    got: list[Any] = []

    class Handler:
        def handle_message(self, message: Any) -> None:
            got.append(message["method"])

    file = tmp_path / "messages.jsonl"
    file.write_text("\n".join([said("opened"), line, said("log"), json.dumps({PIPES_PROTOCOL_VERSION_FIELD: 1}), ""]))
    with MessageFile(file).read_messages(Handler()):  # type: ignore[arg-type]
        pass
    assert got == ["opened", "log"]
