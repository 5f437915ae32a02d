import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import (
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from ernie_pipeline.demo import BASE
from ernie_pipeline.models.checkpoint.version import checkpoint_version, pinned_checkpoint, resolve_checkpoint
from ernie_pipeline.utils.errors import PipelineError

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def hub_answers(monkeypatch: pytest.MonkeyPatch, answer: str | Exception) -> list[tuple[str, str]]:
    """Imitates `HfApi.model_info(repo_id, *, revision, timeout)` of huggingface_hub 1.x.

    Its contract: an object whose `sha` is the commit of `revision`, or one of the hub's, httpx's or the offline mode's
    errors. Gives the list of calls.
    """
    calls = []

    def model_info(self: HfApi, repo_id: str, *, revision: str, timeout: float) -> Any:
        assert timeout > 0
        calls.append((repo_id, revision))
        if isinstance(answer, Exception):
            raise answer
        return SimpleNamespace(sha=answer)

    monkeypatch.setattr(HfApi, "model_info", model_info)
    return calls


def refusal(kind: type[Exception], status: int) -> Exception:
    response = httpx.Response(status, request=httpx.Request("GET", "https://huggingface.co/api/models/someone/ernie"))
    return kind("refused", response=response)  # type: ignore[call-arg]


def test_a_byte_of_the_weights_counts(checkpoint: Path) -> None:
    before = checkpoint_version(checkpoint)
    assert before == checkpoint_version(BASE)
    with (checkpoint / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        last = file.read(1)
        file.seek(-1, 2)
        file.write(bytes([last[0] ^ 1]))
    assert checkpoint_version(checkpoint) != before


@pytest.mark.parametrize("name", ["chat_template.jinja", "tokenizer.json", "generation_config.json", "extra/new.json"])
def test_every_other_file_that_a_loader_may_read_counts(checkpoint: Path, name: str) -> None:
    before = checkpoint_version(checkpoint)
    (checkpoint / name).parent.mkdir(exist_ok=True)
    (checkpoint / name).write_text("{}")
    assert checkpoint_version(checkpoint) != before


def test_where_a_file_lies_counts(checkpoint: Path) -> None:
    (checkpoint / "extra1").mkdir()
    (checkpoint / "extra1" / "new.json").write_text("{}")
    before = checkpoint_version(checkpoint)
    (checkpoint / "extra1").rename(checkpoint / "extra2")
    assert checkpoint_version(checkpoint) != before


@pytest.mark.parametrize("name", ["README.md", "pretraining.json", ".gitattributes", ".git/index", ".cache/a/b.lock"])
def test_what_no_loader_reads_does_not_count(checkpoint: Path, name: str) -> None:
    before = checkpoint_version(checkpoint)
    (checkpoint / name).parent.mkdir(exist_ok=True, parents=True)
    (checkpoint / name).write_text("another")
    assert checkpoint_version(checkpoint) == before


def test_a_checkpoint_below_a_cache_folder_is_read(checkpoint: Path, tmp_path: Path) -> None:
    """As the hub's own downloads are, in ~/.cache/huggingface."""
    below = Path(shutil.move(checkpoint, tmp_path / ".cache" / "hub"))
    assert checkpoint_version(below) == checkpoint_version(BASE)


def test_demo_and_a_folder_have_a_place_no_commit_and_a_version(checkpoint: Path) -> None:
    version = checkpoint_version(BASE)
    assert re.fullmatch("sha256:[0-9a-f]{64}", version)
    assert resolve_checkpoint("demo", "main") == resolve_checkpoint(str(checkpoint), "main") == version
    assert pinned_checkpoint("demo", version) == (str(BASE), None)
    assert pinned_checkpoint(str(checkpoint), version) == (str(checkpoint.resolve()), None)


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "~/nowhere", "a/b/c", "ernie"])
def test_a_path_that_is_not_there_is_one_sentence(name: str) -> None:
    with pytest.raises(PipelineError, match=rf"^base model {re.escape(name)}: there is no such folder; set base_model"):
        resolve_checkpoint(name, "main")


def test_a_folder_without_a_checkpoint_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"no config\.json there; set base_model\.name"):
        resolve_checkpoint(str(tmp_path), "main")


def test_a_hub_ids_revision_is_resolved_to_its_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = hub_answers(monkeypatch, COMMIT)
    assert resolve_checkpoint("someone/ernie", "v2") == f"commit:{COMMIT}"
    assert pinned_checkpoint("someone/ernie", f"commit:{COMMIT}") == ("someone/ernie", COMMIT)
    assert calls == [("someone/ernie", "v2")]


def test_a_full_commit_needs_no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = hub_answers(monkeypatch, AssertionError("asked"))
    assert resolve_checkpoint("someone/ernie", COMMIT) == f"commit:{COMMIT}"
    assert calls == []


def test_what_the_hub_refuses_names_the_recipe_s_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    hub_answers(monkeypatch, refusal(RepositoryNotFoundError, 404))
    with pytest.raises(PipelineError, match=r"^base model someone/ernie is not on the hub; check base_model\.name"):
        resolve_checkpoint("someone/ernie", "v2")
    hub_answers(monkeypatch, refusal(RevisionNotFoundError, 404))
    with pytest.raises(PipelineError, match=r"has no revision 'v2'; set base_model\.revision"):
        resolve_checkpoint("someone/ernie", "v2")


def test_a_name_that_no_hub_id_can_be_is_one_sentence() -> None:
    with pytest.raises(PipelineError, match=r"^base model my models/ernie is not on the hub"):
        resolve_checkpoint("my models/ernie", "main")
