"""A folder in one commit: all of it, checked and fetched back, or nothing."""

import json
from pathlib import Path
from typing import Any

import pytest

from ernie_pipeline.recipe.sections import Publish
from ernie_pipeline.registry.provenance import BUILD_TYPE, PROVENANCE, write_provenance
from ernie_pipeline.registry.publish.access import check_access
from ernie_pipeline.registry.publish.lost import what_is_lost
from ernie_pipeline.registry.publish.upload import Commit, upload
from ernie_pipeline.registry.signing import SIGNATURE
from ernie_pipeline.store.sealed import list_files
from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline_tests.registry.publish.hub import TOKENS, Hub

ASKED = Publish(repo="me/model")
CARD = "---\nlicense: apache-2.0\nlanguage: [en]\ntags: [math]\n---\n\n# model\n"
PREDICATE: dict[str, Any] = {
    "buildDefinition": {"buildType": BUILD_TYPE, "internalParameters": {"fingerprint": "f"}, "resolvedDependencies": []}
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Text, a large file, an empty one, and names that an address has to escape."""
    made = tmp_path / "folder"
    return write(made, {"adapter.safetensors": b"\0" * 1000, "merged/a #1%.json": b"{}", "empty": b""})


def write(folder: Path, files: dict[str, bytes], card: str = CARD) -> Path:
    for name, content in {"README.md": card.encode(), **files}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    (folder / PROVENANCE).unlink(missing_ok=True)
    write_provenance(folder, PREDICATE)
    return folder


def published(folder: Path, asked: Publish = ASKED) -> Commit:
    return upload(asked, check_access(asked), folder, "version 1")


def fetched(tmp_path: Path, commit: str, name: str = "fetched") -> dict[str, Any]:
    """The files, by the hub's own library, but for what the hub itself put there."""
    from huggingface_hub import snapshot_download

    place = tmp_path / name
    snapshot_download("me/model", revision=commit, local_dir=place)
    return {k: v for k, v in list_files(place).items() if not k.startswith((".gitattributes", ".cache"))}


def test_what_is_published_comes_back_byte_for_byte(hub: Hub, folder: Path, tmp_path: Path) -> None:
    made = published(folder, Publish(repo="me/model", tag="v1"))
    repository = hub.repositories["me/model"]
    assert repository.private
    assert [message for message, _ in repository.commits.values()] == ["initial commit", "version 1"]
    assert (made.oid, made.url) == (repository.head, f"{hub.url}/me/model/commit/{repository.head}")
    assert repository.tags == {"v1": made.oid}
    assert fetched(tmp_path, made.oid) == list_files(folder) == made.files
    assert fetched(tmp_path, "v1", "by tag") == made.files


def test_the_same_folder_again_makes_no_commit(hub: Hub, folder: Path) -> None:
    """As when a run was killed after the commit, before it was recorded."""
    made = published(folder)
    before = len(hub.stored)
    hub.log.clear()
    assert published(folder).oid == made.oid
    assert not [each for each in hub.writes() if "/commit/" in each or each.startswith("PUT")]
    assert len(hub.stored) == before


def test_what_an_earlier_publication_had_goes_and_what_others_put_there_stays(hub: Hub, folder: Path) -> None:
    published(folder)
    repository = hub.repositories["me/model"]
    repository.commit("by hand", {**repository.at("main"), "picture.png": (b"\0picture", True)})
    (folder / "adapter.safetensors").unlink()
    write(folder, {"model.gguf": b"GGUF\0"})
    published(folder)
    assert {*repository.files} == {*list_files(folder), "picture.png"}
    assert len(repository.commits) == 4  # the first, two of ours, one by hand


@pytest.mark.parametrize("fault", ["PUT /lfs", "POST .*/commit/", "POST .*/preupload", "validate-yaml"])
@pytest.mark.parametrize("status", [500, 403])
def test_an_upload_that_fails_leaves_the_repository_as_it_was(
    hub: Hub, folder: Path, fault: str, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    published(folder)
    repository = hub.repositories["me/model"]
    before, files = repository.head, dict(repository.files)
    write(folder, {"adapter.safetensors": b"\0" * 2000})
    hub.faults += [(fault, status)] * 9  # the library tries some of them again
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with pytest.raises(PipelineError) as caught:
        published(folder)
    assert "me/model" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert (repository.head, repository.files) == (before, files)
    hub.faults.clear()
    assert published(folder).oid == repository.head != before


def test_whoever_commits_meanwhile_is_not_overwritten(hub: Hub, folder: Path) -> None:
    published(folder)
    repository = hub.repositories["me/model"]
    write(folder, {"adapter.safetensors": b"\0" * 2000})
    hub.before.append(("/commit/", lambda: repository.commit("theirs", repository.at("main")) and None))
    with pytest.raises(PipelineError, match=r"me/model was changed by somebody else meanwhile .412.; nothing of this"):
        published(folder)
    assert [message for message, _ in repository.commits.values()][-1] == "theirs"


def test_a_commit_that_came_through_though_its_answer_was_lost_is_published(hub: Hub, folder: Path) -> None:
    hub.make("me/model")
    hub.lost.append("/commit/")
    made = published(folder, Publish(repo="me/model", tag="v1"))
    repository = hub.repositories["me/model"]
    assert made.oid == repository.head == repository.tags["v1"]
    assert len(repository.commits) == 2


@pytest.mark.parametrize("lost", ["/tag/", ""])
def test_who_was_cut_off_after_the_tag_finds_it_published(hub: Hub, folder: Path, lost: str) -> None:
    """With another signature, as most keys make one each time."""
    asked = Publish(repo="me/model", tag="v1")
    (folder / SIGNATURE).write_text("first")
    if lost:
        hub.lost.append(lost)
        with pytest.raises(PipelineError, match=r"commit .* of me/model is there, but"):
            published(folder, asked)
    else:
        published(folder, asked)
    repository = hub.repositories["me/model"]
    before = repository.head
    (folder / SIGNATURE).write_text("second")
    made = published(folder, asked)
    assert (made.oid, repository.head, repository.tags) == (before, before, {"v1": before})
    assert repository.files[SIGNATURE] == b"first"
    assert made.files == list_files(folder)
    write(folder, {"adapter.safetensors": b"\0" * 2000})
    with pytest.raises(PipelineError, match="has a tag v1 already, which is never moved"):
        published(folder, asked)
    assert repository.head == before


def test_a_tag_that_was_made_meanwhile_is_told_and_the_commit_is_there(hub: Hub, folder: Path) -> None:
    repository = hub.make("me/model")
    first = repository.head
    hub.before.append(("/tag/", lambda: repository.tags.update(v1=first)))
    with pytest.raises(PipelineError, match=r"commit \w{8} of me/model is there, but me/model has a tag v1 already"):
        published(folder, Publish(repo="me/model", tag="v1"))
    assert repository.tags == {"v1": first}


def test_a_card_that_the_hub_does_not_take_is_told_before_anything_is_sent(hub: Hub, folder: Path) -> None:
    write(folder, {}, card=CARD.replace("apache-2.0", "my-own"))
    with pytest.raises(PipelineError, match=r'the hub does not take what is to be published to me/model: .*"license"'):
        published(folder)
    assert hub.stored == {}


def test_a_hub_that_has_another_content_than_was_sent_is_noticed(hub: Hub, folder: Path) -> None:
    def damage() -> None:
        _, files = hub.repositories["me/model"].commits[hub.repositories["me/model"].head]
        files["adapter.safetensors"] = (b"another", True)

    hub.before.append(("GET .*/revision/", damage))
    with pytest.raises(PipelineError, match=r"commit \w{8} of me/model is there, but adapter.safetensors is not there"):
        published(folder)


def test_a_repository_whose_provenance_is_none_of_ours_is_left_alone(hub: Hub, folder: Path) -> None:
    hub.make("me/model").commit("theirs", {PROVENANCE: (json.dumps({"a": 1}).encode(), False)})
    with pytest.raises(PipelineError, match=r"me/model was not published from here: provenance\.json is not readable"):
        published(folder)
    assert hub.repositories["me/model"].files == {PROVENANCE: b'{"a": 1}'}


@pytest.mark.parametrize("during", ["POST .*preupload", "PUT /lfs", "POST .*/commit/", "GET .*/revision/", "/tag/"])
def test_a_token_that_is_revoked_meanwhile_is_told_and_with_another_one_it_goes_on(
    hub: Hub, folder: Path, during: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, revoked = Publish(repo="me/model", tag="v1"), list[str]()

    def revoke() -> None:
        revoked.append(during)
        monkeypatch.delitem(TOKENS, "hf_writes")

    hub.make("me/model")
    hub.before.append((during, revoke))
    with pytest.raises(PipelineError, match=r"does not accept the token for me/model \(401\)|is not on the hub"):
        published(folder, asked)
    assert revoked
    monkeypatch.setitem(TOKENS, "hf_again", {"name": "me", "role": "write", "orgs": {}})
    monkeypatch.setenv("HF_TOKEN", "hf_again")
    repository = hub.repositories["me/model"]
    assert published(folder, asked).oid == repository.head == repository.tags["v1"]
    assert [message for message, _ in repository.commits.values()] == ["initial commit", "version 1"], "once"


def test_of_two_homes_that_publish_to_one_repository_the_last_has_it_whole(
    hub: Hub, folder: Path, tmp_path: Path
) -> None:
    """Nothing of the one is mixed with the other's, and each finds its own commit still."""
    theirs = write(
        tmp_path / "theirs", {"adapter.safetensors": b"\1" * 500, "of theirs.json": b"{}"}, CARD + "\ntheirs"
    )
    ours = published(folder)
    others = published(theirs)
    assert {*hub.repositories["me/model"].files} == {*list_files(theirs)}
    for made in (ours, others):
        told = {"published": True, "repo": "me/model", "commit": made.oid, "private": True, "name": "n", "version": "1"}
        assert what_is_lost("", told) == ""
    assert published(folder).oid == hub.repositories["me/model"].head != ours.oid
    assert {*hub.repositories["me/model"].files} == {*list_files(folder)}
