"""The command line as it is promised: names, options, exit statuses. Who changes it on purpose changes it here too."""

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from ernie_pipeline.cli import output
from ernie_pipeline.cli.app import load, main
from ernie_pipeline.cli.table import COMMANDS, Entry

SETTINGS = "--home --recipe --source"
CHECKS = "--answers --files --rebuild --json"
FROZEN = {
    "run": f"--only --json {SETTINGS}",
    "plan": f"--json {SETTINGS}",
    "refresh": SETTINGS,
    "up": f"--port --mlflow-port {SETTINGS}",
    "ask": f"QUESTION --model --temperature --max-new-tokens --json {SETTINGS}",
    "chat": f"--model --temperature --max-new-tokens {SETTINGS}",
    "serve": f"MODEL --host --port {SETTINGS}",
    "compare": f"FIRST SECOND --json {SETTINGS}",
    "verify": f"MODEL {CHECKS} {SETTINGS}",
    "promote": f"MODEL {CHECKS} {SETTINGS}",
    "rollback": f"{CHECKS} {SETTINGS}",
    "export": f"FORM OUT --model --onto --type --json {SETTINGS}",
    "grade": "FILE --timeout --json",
    "recipe show": f"NAMED --json {SETTINGS}",
    "recipe diff": f"BEFORE AFTER --json {SETTINGS}",
    "recipe check": f"NAMED --json {SETTINGS}",
    "recipe init": "SOURCE --out --base --question --answer --messages --extract",
    "store list": f"--json {SETTINGS}",
    "store verify": f"--json {SETTINGS}",
    "store prune": f"--delete --json {SETTINGS}",
    "doctor": f"--json {SETTINGS}",
    "init": "SOURCE --out --base --question --answer --messages --extract",
}


def commands(entries: Mapping[str, Entry], above: str = "") -> Iterator[tuple[str, Entry]]:
    for name, entry in entries.items():
        yield from commands(entry.group, f"{name} ") if entry.group else [(f"{above}{name}", entry)]


def test_names_and_options_are_as_promised() -> None:
    found = {}
    for name, entry in commands(COMMANDS):
        parameters = load(name.split()[-1], entry).params
        told = [each.opts[0] if each.opts[0].startswith("-") else each.name.upper() for each in parameters]
        found[name] = " ".join(each for each in told if each != "--help")
    assert found == FROZEN


def test_exit_statuses_are_as_promised() -> None:
    named = ("FRESH", "ERROR", "USAGE", "STALE", "OVER_BUDGET", "INTERRUPTED", "CLOSED")
    assert [int(getattr(output, name)) for name in named] == [0, 1, 2, 3, 4, 130, 141]


def test_each_command_s_help_tells_what_its_exit_statuses_mean(capsys: pytest.CaptureFixture[str]) -> None:
    for name, entry in commands(COMMANDS):
        assert main([*name.split(), "--help"]) == 0
        told = " ".join(capsys.readouterr().out.split())
        assert f"Exit status: {entry.exits}" in told, name
        assert told.startswith(f"Usage: ernie {name} ")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["pan"], "there is no command 'pan'; did you mean 'plan'?"),
        (["store", "prun"], "there is no command 'prun'; did you mean 'prune'?"),
        (["zzz"], "there is no command 'zzz'; the commands are run, plan, "),
        ([], "name a command: run, plan, "),
        (["store"], "name a command: list, verify, prune"),
        (["plan", "--jsn"], "ernie plan has no option '--jsn'; did you mean '--json'?"),
        (["--hme", "x", "plan"], "ernie has no option '--hme'; did you mean '--home'?"),
        (["plan", "--nosuch"], "ernie plan has no option '--nosuch'; the options are --json, "),
        (["store", "prune", "--zzz"], "ernie store prune has no option '--zzz'; the options are --delete, --json, "),
        (["export", "pefft", "out"], "FORM 'pefft' is none of peft, unsloth, merged, gguf; did you mean 'peft'?"),
        (["export", "zzz", "out"], "FORM 'zzz' is none of peft, unsloth, merged, gguf; name one of them"),
        (["export", "peft", "out", "--onto", "orig"], "--onto 'orig' is none of quantized, original; did you mean "),
        (["export", "peft"], "ernie export needs OUT, a folder that does not exist yet"),
        (["up", "--port"], "--port is given without a value; name one, or leave --port out"),
        (["up", "--port", "x"], "--port: input should be a valid integer; "),
        (["plan", "more"], "ernie plan takes no 'more'; \"ernie plan --help\" tells what it takes"),
    ],
)
def test_a_wrong_command_line_is_told_with_what_may_have_been_meant(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith(f"error: {said}")
    assert lines[0].startswith("Usage: ernie") or len(lines) == 1


@pytest.mark.parametrize("option", ["--port", "--mlflow-port"])
def test_a_port_that_cannot_be_is_told_before_anything_is_started(
    option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["up", option, "99999"]) == 2
    assert f"error: {option}: input should be less than or equal to 65535" in capsys.readouterr().err


def test_settings_may_stand_before_the_command_or_after_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = str(tmp_path / "none.toml")
    for arguments in (["--recipe", wrong, "plan"], ["plan", "--recipe", wrong]):
        assert main(arguments) == 1
        assert f"recipe {wrong!r} is neither a preset" in capsys.readouterr().err
    assert main(["recipe", "show", "demo"]) == 0, "what an option set is put back"


@pytest.mark.parametrize("option", ["--recipe", "--home", "--source"])
def test_a_setting_without_a_value_is_not_the_default(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([option, "", "plan"], ["plan", option, " "]):
        assert main(arguments) == 1
        assert capsys.readouterr().err.startswith(f"error: {option} is given without a value; name one, or leave ")


def test_the_help_is_there_at_once_and_loads_no_command() -> None:
    seconds = []
    for _ in range(3):
        start = time.monotonic()
        subprocess.run([sys.executable, "-m", "ernie_pipeline", "--help"], check=True, capture_output=True)
        seconds.append(time.monotonic() - start)
    assert min(seconds) < 0.6
    look = "import sys; from ernie_pipeline.cli.app import main; main(['--help']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert {"pydantic", "rich", "ernie_pipeline.cli.plan"} & {*done.stdout.split()} == set()


def test_the_shell_is_told_the_names(tmp_path: Path) -> None:
    def complete(words: str) -> set[str]:
        asked = {"_ERNIE_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
        code = "import sys; from ernie_pipeline.cli.app import main; sys.exit(main([]))"
        return {*subprocess.run([sys.executable, "-c", code], env=asked, capture_output=True, text=True).stdout.split()}

    assert complete("ernie re") == {"refresh", "recipe"}
    assert complete("ernie store p") == {"prune"}
    assert "--json" in complete("ernie plan --")
