"""How a child process ended, and a question to one that answers in a file."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

from ernie_pipeline.utils.errors import PipelineError

SIGNALS = {2: "interrupted", 9: "killed, perhaps for want of memory", 15: "terminated"}

Answer = TypeVar("Answer", bound=BaseModel)


def how_it_ended(status: int) -> str:
    """A clause for a child's exit status other than 0, as `subprocess` gives it: negative for a signal."""
    if status >= 0:
        return f"failed with exit status {status}"
    why = f" ({SIGNALS[-status]})" if -status in SIGNALS else ""
    return f"was ended by signal {-status}{why}"


CHILD_SCRIPT = Path(__file__).with_name("child_script.py")


def ask_child(
    arguments: Sequence[str], request: BaseModel, answer: type[Answer], folder: Path, environment: Mapping[str, str]
) -> Answer:
    """Run `python *arguments request.json answer.json` in scratch space, and give its answer, validated.

    The child writes values for the class `answer`, or {"error": a sentence}. Raises `PipelineError` with that sentence,
    or with how the child ended where it wrote nothing.
    """
    asked, answered = folder / "request.json", folder / "answer.json"
    asked.write_text(request.model_dump_json(), encoding="utf-8")
    command = [sys.executable, *arguments, str(asked), str(answered)]
    ended = subprocess.run(command, stdin=subprocess.DEVNULL, env=dict(environment))
    if not answered.is_file():
        raise PipelineError(f"its process gave no answer: it {how_it_ended(ended.returncode)}")
    values = json.loads(answered.read_bytes())
    if "error" in values:
        raise PipelineError(str(values["error"]))
    return answer.model_validate(values)


def ask_script(
    script: Path, request: BaseModel, answer: type[Answer], folder: Path, environment: Mapping[str, str]
) -> Answer:
    """The same of the function `answer` in a script, called with the request's fields. The child ends with its parent.

    It finds no code but what is installed.
    """
    # -P: neither the script's folder nor the working directory may stand in for other code; -B: leave no cache
    arguments = ["-P", "-B", str(CHILD_SCRIPT), str(script)]
    # GOMP: as in launch/environment.py
    return ask_child(arguments, request, answer, folder, {"OMP_WAIT_POLICY": "PASSIVE", **environment})
