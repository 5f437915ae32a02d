"""`ernie run`: lines that live on a terminal and plain ones elsewhere, one sentence for an error, no traceback."""

import io
import json
import logging
import os
import pty
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from ernie_pipeline.cli.live import RunView
from ernie_pipeline.cli.run import _untold
from ernie_pipeline.orchestration.told import told_of
from ernie_pipeline_tests.scenarios.chain import IN_PROCESS, QUICK_RECIPE, row, write_rows

ERNIE = [sys.executable, "-m", "ernie_pipeline"]
ANSI = "\x1b["
STATES = {"math_split": ("missing", "not built yet"), "qlora_adapter": ("stale", "recipe lora.rank 8 -> 16")}


def wrote(file: Path, *lines: dict[str, Any]) -> None:
    with file.open("a") as out:
        out.writelines(json.dumps(line) + "\n" for line in lines)


EVENTS: list[dict[str, Any]] = [
    {"what": "began", "asset": "math_split"},
    {"what": "made", "asset": "math_split", "values": {"reused": True, "build seconds": 3.0}},
    {"what": "began", "asset": "qlora_adapter"},
    {
        "what": "progress",
        "asset": "qlora_adapter",
        "values": {"step": 10, "max_steps": 50, "loss": 0.5, "seconds_left": 80},
    },
    {"what": "warned", "asset": "qlora_adapter", "words": "it was built again"},
    {"what": "failed", "asset": "qlora_adapter", "words": "the loss is no number any more"},
]


def test_elsewhere_than_on_a_terminal_each_change_is_a_plain_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "told.jsonl"
    view = RunView(STATES, file, Console(file=io.StringIO()))
    view.look()  # nothing is there yet
    wrote(file, *EVENTS)
    with file.open("a") as out:
        out.write('{"what": "made", "ass')  # half a line, whose rest is to come
    view.look()
    view.end(interrupted=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:4] == [
        "math_split     missing   not built yet",
        "qlora_adapter  stale     recipe lora.rank 8 -> 16",
        "math_split     building  not built yet",
        "math_split     reused",
    ]
    assert lines[4:] == [
        "qlora_adapter  building  recipe lora.rank 8 -> 16",
        "qlora_adapter  failed    the loss is no number any more",
    ], "progress within the first seconds is not told"
    assert view.warnings == ["qlora_adapter: it was built again"]
    assert [line.failure for line in view.lines.values()] == ["", "the loss is no number any more"]


def test_a_stage_that_has_begun_waits_for_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "told.jsonl"
    view = RunView({"registered_model": ("waiting", "waits for qlora_adapter")}, file, Console(file=io.StringIO()))
    wrote(file, {"what": "began", "asset": "registered_model"})
    view.look()
    assert capsys.readouterr().out.splitlines() == [
        "registered_model  waiting   waits for qlora_adapter",
        "registered_model  building",
    ]


def test_elsewhere_what_a_stage_does_is_told_every_few_seconds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file, now = tmp_path / "told.jsonl", [100.0]
    monkeypatch.setattr("ernie_pipeline.cli.live.time.monotonic", lambda: now[0])
    view = RunView({"registered_model": ("stale", "lost")}, file, Console(file=io.StringIO()))
    told = (("began", ""), ("said", "uploading"), ("said", "loading it back"))
    wrote(file, *({"what": what, "asset": "registered_model", "words": words} for what, words in told))
    for seconds in (1, 10, 5, 20):
        now[0] += seconds
        view.look()
    assert capsys.readouterr().out.splitlines()[2:] == ["registered_model  building  loading it back"], "and once"
    wrote(file, {"what": "said", "asset": "registered_model", "words": "asking the gate"})
    view.look()
    assert capsys.readouterr().out.splitlines() == ["registered_model  building  asking the gate"]


def test_on_a_terminal_a_line_lives_and_tells_rate_and_end(tmp_path: Path) -> None:
    file, out = tmp_path / "told.jsonl", io.StringIO()
    view = RunView(STATES, file, Console(file=out, force_terminal=True, width=120))
    wrote(file, *EVENTS[:4])
    view.look()
    assert ANSI in out.getvalue()
    assert re.search(r"step 10 of 50, loss 0\.5, about 80 s left, until \d\d:\d\d:\d\d", out.getvalue())
    line = view.lines["qlora_adapter"]
    line.said("answered 4 of 44", 100.0)
    assert line.detail == "answered 4 of 44"
    line.said("answered 24 of 44", 110.0)
    assert line.detail.startswith("answered 24 of 44, 2/s, about 10 s left, until ")
    view.end(interrupted=True)
    assert line.state == "stopped"


def test_the_logger_tells_what_belongs_to_a_step_from_information_on() -> None:
    def record(level: int, step: str | None, words: str) -> logging.LogRecord:
        made = logging.LogRecord("dagster", level, __file__, 1, f"run - {words}", (), None)
        made.dagster_meta = {"step_key": step, "orig_message": words}
        return made

    assert told_of(record(logging.INFO, "raw_nemotron", "reading")) == {
        "what": "said",
        "asset": "raw_nemotron",
        "words": "reading",
    }
    warned = told_of(record(logging.WARNING, "raw_nemotron", "odd"))
    assert warned
    assert warned["what"] == "warned"
    assert told_of(record(logging.DEBUG, "raw_nemotron", "detail")) is None
    of_pipes = "[pipes] did not receive closed message from external process."
    assert told_of(record(logging.WARNING, "qlora_adapter", of_pipes)) is None, "as after Ctrl-C"
    assert told_of(record(logging.INFO, None, "of the run")) is None


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("ERNIE_", "DAGSTER_", "MLFLOW_"))}
    recipe = tmp_path / "quick.toml"
    recipe.write_text(QUICK_RECIPE)
    return {**kept, "ERNIE_PIPELINE_HOME": str(tmp_path / "home"), "ERNIE_PIPELINE_RECIPE": str(recipe)}


def test_a_run_into_a_pipe_is_plain_and_the_next_one_has_nothing_to_do(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    environment["FORCE_COLOR"] = "1"  # as in a notebook, and for many a CI
    command = [*ERNIE, "run", "--only", "raw_nemotron,math_split"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert ANSI not in done.stdout
    assert done.stdout.startswith(f"recipe {tmp_path / 'quick.toml'}, home {tmp_path / 'home'}\n")
    assert re.search(r"^math_split +built +in \d", done.stdout, re.MULTILINE)
    assert re.search(r"^rows     269 to train, 30 held out, 1 dropped$", done.stdout, re.MULTILINE)
    assert f"DAGSTER_HOME={tmp_path / 'home' / 'dagster'} dagster dev" in done.stdout
    assert (tmp_path / "home" / "dagster" / "history").is_dir(), "Dagster's UI shows the run"
    [log] = (tmp_path / "home" / "logs").iterdir()
    assert "ASSET_MATERIALIZATION - Materialized value math_split" in log.read_text(), "Dagster's own log is kept"
    assert "Traceback" not in log.read_text()

    again = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert again.returncode == 0
    assert "math_split          reused\n" in again.stdout
    assert "Nothing is stale" in again.stdout or "is to be built" in again.stdout
    assert len(list((tmp_path / "home" / "logs").iterdir())) == 1, "no run was started"


@pytest.fixture
def warning(tmp_path: Path, environment: dict[str, str]) -> str:
    """What is told of the environment's DAGSTER_HOME, which is another home's from now on."""
    other = tmp_path / ".ernie" / "dagster"
    other.mkdir(parents=True)
    environment["DAGSTER_HOME"] = str(other)
    return f"warning: DAGSTER_HOME belongs to the home {tmp_path / '.ernie'}, and this is {tmp_path / 'home'}: "


def test_a_dagster_home_of_another_home_is_warned_of_once_by_dagster_too(
    tmp_path: Path, environment: dict[str, str], warning: str
) -> None:
    """What `ernie run` says of it: `test_a_program_is_told_why_a_run_failed`."""
    environment["ERNIE_PIPELINE_SOURCE"] = write_rows(tmp_path / "rows.jsonl", [row("What is 1 + 1?", "2")])
    dagster = ["dagster", "asset", "materialize", "--select", "raw_nemotron", "-m", "ernie_pipeline.definitions"]
    command = [sys.executable, "-m", *dagster, "--config-json", json.dumps(IN_PROCESS)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert sum(line.startswith(warning) for line in (done.stdout + done.stderr).splitlines()) == 1


def on_a_terminal(command: Sequence[str], environment: Mapping[str, str], folder: Path) -> tuple[int, str, str]:
    """Exit status, what the terminal got, and standard error."""
    shown, terminal = pty.openpty()
    run = subprocess.Popen(command, env={**environment}, stdout=terminal, stderr=subprocess.PIPE, text=True, cwd=folder)
    os.close(terminal)
    seen = read_all(shown)
    _, said = run.communicate()
    return run.returncode, seen, said


def test_in_a_notebook_s_pseudo_terminal_lines_are_plain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = {"TERM": "xterm-color", "CLICOLOR": "1", "FORCE_COLOR": "1", "CLICOLOR_FORCE": "1", "PAGER": "cat"}
    for variable, value in kernel.items():
        monkeypatch.setenv(variable, value)
    shown, terminal = pty.openpty()
    with os.fdopen(terminal, "w") as out, monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", out)
        assert out.isatty()
        wrote(tmp_path / "told.jsonl", *EVENTS)
        RunView(STATES, tmp_path / "told.jsonl").end(interrupted=False)
    seen = read_all(shown)
    assert ANSI not in seen
    assert re.search(r"^math_split +reused\r$", seen, re.MULTILINE)


def test_bad_rows_are_one_sentence_on_a_terminal_too(tmp_path: Path, environment: dict[str, str]) -> None:
    source = write_rows(tmp_path / "rows.jsonl", [row("What is 1 + 1?", "2"), "{broken"])
    command = [*ERNIE, "run", "--only", "raw_nemotron", "--source", source]
    status, seen, said = on_a_terminal(command, {**environment, "TERM": "xterm"}, tmp_path)
    assert status == 1
    assert ANSI in seen
    assert "failed" in seen
    first, log = said.splitlines()
    assert first.startswith("error: raw_nemotron: ")
    assert "rows.jsonl" in first
    assert log.startswith("Dagster's whole log: ")


def test_a_program_is_told_why_a_run_failed(tmp_path: Path, environment: dict[str, str], warning: str) -> None:
    """And a warning, once."""
    source = write_rows(tmp_path / "rows.jsonl", [row("What is 1 + 1?", "2"), "{broken"])
    command = [*ERNIE, "run", "--only", "raw_nemotron", "--source", source, "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)
    told = json.loads(done.stdout)
    assert (done.returncode, told["exit_status"], told["built"], told["fresh"]) == (1, 1, [], False)
    [why] = told["failures"]
    assert f"error: {why}\n" in done.stderr
    assert why.startswith("raw_nemotron: ")
    assert told["source"] == source
    assert sum(line.startswith(warning) for line in done.stderr.splitlines()) == 1
    assert warning not in Path(told["log"]).read_text()


def test_a_run_that_ends_without_a_word_tells_a_full_disk_or_the_stage_that_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    view, log = RunView(STATES, tmp_path / "told.jsonl"), tmp_path / "home" / "logs" / "run.log"
    log.parent.mkdir(parents=True)
    assert _untold(view, log) == "the run failed before it began"
    wrote(tmp_path / "told.jsonl", *EVENTS[:3])
    view.end(interrupted=False)
    assert _untold(view, log) == "qlora_adapter stopped, and Dagster tells no reason"
    free = {log.parent: 0, tmp_path: 2**40}
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=free[place]))
    assert _untold(view, log).startswith(f"the disk that holds {tmp_path / 'home'} is full; make room or set")


def read_all(terminal: int) -> str:
    parts = []
    while True:
        try:
            part = os.read(terminal, 65536)
        except OSError:  # the other side is closed
            part = b""
        if not part:
            return b"".join(parts).decode()
        parts.append(part)


def test_an_asset_that_there_is_none_of_is_told_with_the_nearest(tmp_path: Path, environment: dict[str, str]) -> None:
    done = subprocess.run([*ERNIE, "run", "--only", "qlora_adaptor"], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert (
        done.stderr == "error: --only qlora_adaptor: there is no asset 'qlora_adaptor'; did you mean 'qlora_adapter'?\n"
    )
    assert not (tmp_path / "home").exists()
    done = subprocess.run([*ERNIE, "run", "--only", ""], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: --only is given without a value; name one, or leave --only out\n"


def test_what_was_stopped_is_no_failure_and_what_waits_below_is_no_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "told.jsonl"
    view = RunView(STATES, file, Console(file=io.StringIO()))
    wrote(file, EVENTS[2], {"what": "stopped", "asset": "qlora_adapter", "words": "DagsterExecutionInterruptedError"})
    view.end(interrupted=True)
    assert capsys.readouterr().out.splitlines()[-1] == "qlora_adapter  stopped"
    assert [line.failure for line in view.lines.values()] == ["", ""]
    below = logging.LogRecord("dagster", logging.ERROR, __file__, 1, "", (), None)
    below.dagster_meta = {"step_key": "x", "orig_message": "Dependencies for step x failed: ['y']. Not executing."}
    assert told_of(below) == {"what": "skipped", "asset": "x"}


def test_an_asset_alone_whose_inputs_are_stale_is_refused_with_all_to_build(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    command = [*ERNIE, "run", "--only", "qlora_adapter,math_split"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "error: --only qlora_adapter,math_split: raw_nemotron, verified_solutions are read there and not fresh; "
        "build all: --only raw_nemotron,math_split,verified_solutions,qlora_adapter\n"
    )
    assert not (tmp_path / "home").exists()


def test_a_training_s_steps_stand_in_one_form(tmp_path: Path) -> None:
    view = RunView(STATES, tmp_path / "told.jsonl", Console(file=io.StringIO()))
    twice = {
        "what": "said",
        "asset": "qlora_adapter",
        "words": "step 10/50: loss 0.5, tokens/s 9 (1 s, about 4 s left)",
    }
    wrote(tmp_path / "told.jsonl", *EVENTS[2:4], twice)
    view.look()
    assert view.lines["qlora_adapter"].detail.startswith("step 10 of 50, loss 0.5, about 80 s left")
