"""A question to a real child process, and whatever it does instead of answering."""

import os
from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict, ValidationError

from ernie_pipeline.utils.child_process import ask_child, how_it_ended
from ernie_pipeline.utils.errors import PipelineError


class Question(BaseModel):
    numbers: tuple[float, ...]


class Sum(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    total: float


def ask(folder: Path, then: str) -> Sum:
    script = f"import json, os, sys\nnumbers = json.load(open(sys.argv[1]))['numbers']\n{then}"
    return ask_child(["-c", script], Question(numbers=(1.5, 2)), Sum, folder, os.environ)


def answering(values: str) -> str:
    return f"json.dump({values}, open(sys.argv[2], 'w'))"


def test_the_answer_is_validated(tmp_path: Path) -> None:
    assert ask(tmp_path, answering("{'total': sum(numbers)}")) == Sum(total=3.5)
    with pytest.raises(ValidationError):
        ask(tmp_path, answering("{'total': 'many'}"))


def test_the_child_s_own_sentence_is_the_error(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"^row 7 is blue$"):
        ask(tmp_path, answering("{'error': 'row 7 is blue'}"))


@pytest.mark.parametrize(
    ("end", "how"),
    [
        ("os.kill(os.getpid(), 9)", "was ended by signal 9 (killed, perhaps for want of memory)"),
        ("os.kill(os.getpid(), 10)", "was ended by signal 10"),
        ("sys.exit(3)", "failed with exit status 3"),
    ],
)
def test_without_an_answer_it_says_how_the_child_ended(tmp_path: Path, end: str, how: str) -> None:
    with pytest.raises(PipelineError) as caught:
        ask(tmp_path, end)
    assert str(caught.value) == f"its process gave no answer: it {how}"


def test_a_signal_is_named_by_what_it_mostly_means() -> None:
    assert how_it_ended(-15) == "was ended by signal 15 (terminated)"
