from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import (
    GatedRepoError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from ernie_pipeline.data.read.source import describe_source, resolve_source
from ernie_pipeline.recipe.sections import Source
from ernie_pipeline.utils.errors import PipelineError

COMMIT = "0123456789abcdef0123456789abcdef01234567"
HUB = Source(kind="hub", dataset="someone/maths")


def hub_answers(monkeypatch: pytest.MonkeyPatch, answer: str | Exception) -> list[tuple[str, str]]:
    """Imitates `HfApi.dataset_info(repo_id, *, revision, timeout)` of huggingface_hub 1.x.

    Its contract: returns an object whose `sha` is the commit that `revision` names; raises `GatedRepoError`,
    `RepositoryNotFoundError` or `RevisionNotFoundError` for the hub's refusals, `OfflineModeIsEnabled` when
    HF_HUB_OFFLINE is set, and lets httpx's errors through when there is no network. Gives the list of calls.
    """
    calls = []

    def dataset_info(self: HfApi, repo_id: str, *, revision: str, timeout: float) -> Any:
        calls.append((repo_id, revision))
        if isinstance(answer, Exception):
            raise answer
        return SimpleNamespace(sha=answer)

    monkeypatch.setattr(HfApi, "dataset_info", dataset_info)
    return calls


def refusal(kind: type[Exception], status: int) -> Exception:
    response = httpx.Response(status, request=httpx.Request("GET", "https://huggingface.co/api/datasets/someone/maths"))
    return kind("refused", response=response)


def file_source(path: Path, content: bytes) -> Source:
    path.write_bytes(content)
    return Source(kind="file", path=str(path))


def test_a_file_is_known_by_its_content_not_by_its_name(tmp_path: Path) -> None:
    first = resolve_source(file_source(tmp_path / "a.jsonl", b"same"))
    assert first == resolve_source(file_source(tmp_path / "b.jsonl", b"same"))
    assert first == "sha256:0967115f2813a3541eaef77de9d9d5773f1c0c04314b0bbfe4ff3b3b1c55b5d5"


def test_one_changed_byte_is_another_version(tmp_path: Path) -> None:
    versions = {resolve_source(file_source(tmp_path / "a.jsonl", content)) for content in (b"same", b"samE")}
    assert len(versions) == 2


def test_a_missing_file_is_named_in_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PipelineError) as caught:
        resolve_source(Source(kind="file", path="rows.jsonl"))
    assert f"source file {tmp_path / 'rows.jsonl'} does not exist" in str(caught.value)
    assert "ERNIE_PIPELINE_SOURCE" in str(caught.value)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="is a folder"):
        resolve_source(Source(kind="file", path=str(tmp_path)))


def test_a_branch_becomes_its_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = hub_answers(monkeypatch, COMMIT)
    assert resolve_source(HUB) == f"commit:{COMMIT}"
    assert calls == [("someone/maths", "main")]


def test_a_commit_needs_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = hub_answers(monkeypatch, OfflineModeIsEnabled("offline"))
    assert resolve_source(HUB.model_copy(update={"revision": COMMIT})) == f"commit:{COMMIT}"
    assert calls == []


@pytest.mark.parametrize(
    ("refused", "advice"),
    [
        (refusal(GatedRepoError, 403), "is gated; .* set HF_TOKEN"),
        (refusal(RepositoryNotFoundError, 404), "is not on the hub; check source.dataset"),
        (refusal(RevisionNotFoundError, 404), "has no revision 'main'; set source.revision"),
        (httpx.ConnectError("Name or service not known"), "did not answer .*Name or service not known.*network"),
        (OfflineModeIsEnabled("offline mode is enabled"), "did not answer .*HF_HUB_OFFLINE"),
        ("main", "gave no commit"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_each_refusal_of_the_hub_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, refused: str | Exception, advice: str
) -> None:
    hub_answers(monkeypatch, refused)
    with pytest.raises(PipelineError, match=advice) as caught:
        resolve_source(HUB)
    assert "data set someone/maths" in str(caught.value)


def test_the_demo_is_known_by_what_it_generates() -> None:
    versions = [resolve_source(Source(rows=rows, seed=seed)) for rows, seed in ((5, 0), (5, 0), (6, 0), (5, 1))]
    assert versions[0].startswith("demo:")
    assert versions[0] == versions[1]
    assert len(set(versions)) == 3


def test_a_label_names_the_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert describe_source(Source(kind="file", path="rows.jsonl")) == f"file {tmp_path / 'rows.jsonl'}"
    assert "someone/maths" in describe_source(HUB)
    assert "12 generated problems" in describe_source(Source(rows=12))
