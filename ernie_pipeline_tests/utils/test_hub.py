from types import SimpleNamespace
from typing import Any, Literal

import httpx
import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import (
    GatedRepoError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline.utils.hub import hub_commit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
KINDS: tuple[Literal["dataset", "model"], ...] = ("dataset", "model")


def hub_answers(monkeypatch: pytest.MonkeyPatch, answer: Any) -> list[tuple[str, str, str]]:
    """Imitates `dataset_info` and `model_info(repo_id, *, revision, timeout)` of huggingface_hub 1.x's `HfApi`.

    Their contract: an object whose `sha` is the commit that `revision` names; the hub's refusals, the offline mode's
    and httpx's errors are raised. Gives the list of calls.
    """
    calls = []
    for kind in KINDS:

        def info(self: HfApi, repo_id: str, *, revision: str, timeout: float, kind: str = kind) -> Any:
            calls.append((kind, repo_id, revision))
            if isinstance(answer, Exception):
                raise answer
            return SimpleNamespace(sha=answer)

        monkeypatch.setattr(HfApi, f"{kind}_info", info)
    return calls


def refusal(kind: type[Exception], status: int) -> Exception:
    response = httpx.Response(status, request=httpx.Request("GET", "https://huggingface.co/api"))
    return kind("refused", response=response)


def ask(kind: Literal["dataset", "model"] = "dataset", revision: str = "v2") -> str:
    return hub_commit(kind, "someone/it", revision, "section.name", "section.revision")


@pytest.mark.parametrize("kind", KINDS)
def test_a_branch_becomes_its_commit(monkeypatch: pytest.MonkeyPatch, kind: Literal["dataset", "model"]) -> None:
    calls = hub_answers(monkeypatch, COMMIT)
    assert ask(kind) == COMMIT
    assert calls == [(kind, "someone/it", "v2")]


def test_a_full_commit_needs_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = hub_answers(monkeypatch, AssertionError("asked"))
    assert ask(revision=COMMIT) == COMMIT
    assert calls == []


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (refusal(GatedRepoError, 403), "someone/it is gated; accept its terms .* set HF_TOKEN"),
        (refusal(RepositoryNotFoundError, 404), r"someone/it is not on the hub; check section\.name"),
        (refusal(RevisionNotFoundError, 404), r"someone/it has no revision 'v2'; set section\.revision"),
        (httpx.ConnectError("no route\nto it"), r"did not answer for .*someone/it \(ConnectError: no route\); check"),
        (httpx.ReadTimeout("slow"), "did not answer .*ReadTimeout"),
        (OfflineModeIsEnabled("offline"), "did not answer .*HF_HUB_OFFLINE"),
        ("main", "gave no commit for .*someone/it"),
        (None, "gave no commit for .*someone/it"),
    ],
)
@pytest.mark.parametrize(("kind", "name"), [("dataset", "data set"), ("model", "base model")])
def test_what_the_hub_refuses_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, answer: Any, sentence: str, kind: Literal["dataset", "model"], name: str
) -> None:
    hub_answers(monkeypatch, answer)
    with pytest.raises(PipelineError, match=sentence) as caught:
        ask(kind)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_name_that_no_repository_has_is_refused_without_a_network() -> None:
    with pytest.raises(PipelineError, match="is not on the hub"):
        hub_commit("model", "no name/at all", "main", "a", "b")
