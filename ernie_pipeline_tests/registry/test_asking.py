"""`ask` and `chat` with a registered model: the answer comes piece by piece, and is the one it gives in one go."""

import io
import json
from pathlib import Path

import pytest

from ernie_pipeline.cli.app import main
from ernie_pipeline.models.backend import Sampling
from ernie_pipeline.models.checkpoint.tokenizer import answer_texts
from ernie_pipeline.recipe.settings import Settings
from ernie_pipeline.registry.asking import PIECES, Asked
from ernie_pipeline.registry.registration import Registration, RegistrationRequest
from ernie_pipeline.registry.serving.conversation import checked_settings
from ernie_pipeline.utils.errors import PipelineError

QUESTION = "Compute 12 + 30."


@pytest.fixture
def champion(registered: Registration, make_request: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    request: RegistrationRequest = make_request()  # type: ignore[operator]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", request.tracking_uri)
    monkeypatch.setenv("ERNIE_PIPELINE_HOME", str(tmp_path / "home"))
    return f"models:/{registered.name}@champion"


def test_the_pieces_are_the_answer_that_is_given_in_one_go(champion: str) -> None:
    asked, most = Asked(Settings.from_environment(), champion), sum(PIECES) + 5
    messages = [{"role": "user", "content": QUESTION}]
    pieces = list(asked.answer(messages, max_new_tokens=most))
    prompt = asked.answering.prompt(
        [{"role": "user", "content": asked.instruction + QUESTION}], checked_settings({"max_new_tokens": most}, most)
    )
    whole = asked.model.generate([prompt.tokens], Sampling(most), rows=1).tokens
    assert "".join(pieces) == answer_texts(asked.model.tokenizer, whole)[0]
    assert len(pieces) > 1, "it is shown as it is made"
    with pytest.raises(PipelineError, match="--max-new-tokens must be less than"):
        next(asked.answer(messages, max_new_tokens=10**6))


def test_a_question_on_the_command_line_and_a_conversation(
    champion: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["ask", QUESTION, "--model", champion, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["question"], said["model"].rpartition("/")[0]) == (QUESTION, champion.partition("@")[0])
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{QUESTION}\n\n{QUESTION}\n"))
    assert main(["chat", "--model", champion]) == 0
    assert capsys.readouterr().out == f"{said['answer']}\n{said['answer']}\n", "an empty line begins anew"


def test_a_model_that_is_not_there_is_told(champion: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ask", QUESTION, "--model", f"{champion.partition('@')[0]}/99"]) == 1
    assert "with the number 99 in the registry" in capsys.readouterr().err
