"""A folder in one commit of a hub's repository: all of it or nothing, checked, then tagged."""

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from ernie_pipeline.recipe.sections import Publish
from ernie_pipeline.registry.provenance import PROVENANCE, read_provenance, recorded_digests
from ernie_pipeline.registry.publish.access import UPLOADED_S, Target, check_tag, hub_answers, hub_api, tag_is_taken
from ernie_pipeline.registry.signing import SIGNATURE
from ernie_pipeline.store.sealed import Files, list_files
from ernie_pipeline.utils.errors import PipelineError

if TYPE_CHECKING:
    from huggingface_hub import HfApi


@dataclass(frozen=True)
class Commit:
    """Where the folder is on the hub, and the files that are in it."""

    oid: str
    url: str
    files: Files


def upload(publish: Publish, target: Target, folder: Path, message: str) -> Commit:
    """Make the repository where there is none, and commit the folder on `target.head`.

    Files of an earlier publication that are not in the folder go in the same commit. Not by `upload_folder`, which
    makes several commits of a large folder. A folder of which every file is there already makes no commit; nor does
    one whose tag is there, with all but another signature of the same files, which then takes the place of its own.
    Raises `PipelineError`, and then the repository's files are as they were, unless the sentence says otherwise.
    """
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    is_tagged = check_tag(publish, target)
    with hub_answers(publish.repo, UPLOADED_S):
        api = hub_api()
        if is_tagged:
            _take_signature(api, publish, target, folder)
        files = list_files(folder)
        oid = target.head if is_tagged and target.head else _committed(api, publish, target, folder, files, message)
    with _told_as_published(publish, oid):
        _check(api, publish.repo, oid, folder, files)
        if publish.tag and not is_tagged:
            _tag(api, publish, oid)
    return Commit(oid, f"{api.endpoint}/{publish.repo}/commit/{oid}", files)


def _take_signature(api: "HfApi", publish: Publish, target: Target, folder: Path) -> None:
    """Put the signature that is in the repository into the folder, if that is all in which the two differ.

    Raises `PipelineError` where the tagged commit holds something else than the folder, or more of ours.
    """
    files = list_files(folder)
    unsigned = {name: entry for name, entry in files.items() if name != SIGNATURE}
    more = _published_before(api, target) - {*files}
    if (
        more
        or (SIGNATURE in files) != (SIGNATURE in target.files)
        or _unlike(api, target.repo, str(target.head), folder, unsigned)
    ):
        raise tag_is_taken(publish)
    if SIGNATURE in files:
        with TemporaryDirectory(prefix="ernie_pipeline_") as scratch:
            api.hf_hub_download(target.repo, SIGNATURE, revision=target.head, local_dir=scratch)
            shutil.copyfile(Path(scratch) / SIGNATURE, folder / SIGNATURE)


def _committed(api: "HfApi", publish: Publish, target: Target, folder: Path, files: Files, message: str) -> str:
    """The commit in which the folder is."""
    import httpx
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    head = target.head or _made(api, publish)
    removed = sorted(_published_before(api, target) - {*files})
    operations = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=folder / name) for name in files]
    try:
        made = api.create_commit(
            publish.repo,
            [*operations, *(CommitOperationDelete(path_in_repo=name, is_folder=False) for name in removed)],
            commit_message=message,
            parent_commit=head,
        )
    except (OSError, httpx.HTTPError):  # of the way there, or of the way back
        if arrived := _arrived(api, publish.repo, head, folder, files):
            return arrived
        raise
    return str(made.oid)


def _arrived(api: "HfApi", repo: str, head: str | None, folder: Path, files: Files) -> str:
    """The commit after `head` that has the folder's files, though nobody said that it was made; "" if there is none."""
    import httpx

    try:
        now = api.model_info(repo).sha
        return now if now and now != head and not _unlike(api, repo, now, folder, files) else ""
    except (OSError, httpx.HTTPError):
        return ""


def _tag(api: "HfApi", publish: Publish, oid: str) -> None:
    from huggingface_hub.errors import HfHubHTTPError

    try:
        api.create_tag(publish.repo, tag=publish.tag, revision=oid)
    except HfHubHTTPError as error:
        if error.response.status_code != 409:
            raise
        raise tag_is_taken(publish) from None  # meanwhile, or by this request, whose answer was lost


@contextmanager
def _told_as_published(publish: Publish, oid: str) -> Iterator[None]:
    """What fails once the commit is there says that it is."""
    try:
        with hub_answers(publish.repo):
            yield
    except PipelineError as error:
        raise PipelineError(f"commit {oid[:8]} of {publish.repo} is there, but {error}") from None


def _made(api: "HfApi", publish: Publish) -> str | None:
    """The first commit of a new repository, in which there is nothing."""
    api.create_repo(publish.repo, private=publish.private)
    return api.model_info(publish.repo).sha


def _published_before(api: "HfApi", target: Target) -> frozenset[str]:
    """The files that an earlier publication put there, as its statement of provenance says."""
    if PROVENANCE not in target.files:
        return frozenset()
    with TemporaryDirectory(prefix="ernie_pipeline_") as scratch:
        api.hf_hub_download(target.repo, PROVENANCE, revision=target.head, local_dir=scratch)
        try:
            statement = read_provenance(Path(scratch))
        except ValueError as error:
            raise PipelineError(
                f"{target.repo} was not published from here: {error}; set publish.repo to another repository"
            ) from None
    assert statement, "it was fetched"
    return target.files & {*recorded_digests(statement), PROVENANCE, SIGNATURE}


def _check(api: "HfApi", repo: str, oid: str, folder: Path, files: Files) -> None:
    """Raise `PipelineError` unless the hub has each file as it is here."""
    if name := _unlike(api, repo, oid, folder, files):
        raise PipelineError(f"{name} is not there as it is here; remove that commit, and run again")


def _unlike(api: "HfApi", repo: str, oid: str, folder: Path, files: Files) -> str:
    """The first file that the hub has not as it is here, by the hashes that it tells; "" if none."""
    there = {each.rfilename: each for each in api.model_info(repo, revision=oid, files_metadata=True).siblings or ()}
    for name, entry in files.items():
        found = there.get(name)
        same = found is not None and (
            found.lfs.sha256 == entry["sha256"] if found.lfs else found.blob_id == _git_hash(folder / name)
        )
        if not same:
            return name
    return ""


def _git_hash(file: Path) -> str:
    """As git names the content of a file: https://git-scm.com/book/en/v2/Git-Internals-Git-Objects."""
    content = file.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
