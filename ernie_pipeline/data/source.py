"""Which version of the source there is: a content hash, a hub commit, or the demo generator's own version."""

import hashlib
import re
from pathlib import Path

from ernie_pipeline.errors import PipelineError
from ernie_pipeline.recipe import Source

COMMIT = re.compile(r"[0-9a-f]{40}")
HUB_TIMEOUT_S = 30.0


def resolve_source(source: Source) -> str:
    """The source's data version: "sha256:<hex>" of a file, "commit:<40 hex>" of a hub data set, or "demo:<version>".

    Never a branch name. A revision that is a commit already needs no network. Raises `PipelineError` when the file
    or the data set cannot be reached.
    """
    if source.kind == "file":
        return f"sha256:{_file_hash(source_file(source))}"
    if source.kind == "hub":
        is_commit = COMMIT.fullmatch(source.revision)
        return f"commit:{source.revision if is_commit else _hub_commit(source.dataset, source.revision)}"
    from ernie_pipeline.demo.problems import demo_version

    return f"demo:{demo_version(source.rows, source.seed)}"


def describe_source(source: Source) -> str:
    """A label for people: what the rows are read from, without resolving it."""
    if source.kind == "file":
        return f"file {_absolute(source)}"
    if source.kind == "hub":
        return f"data set {source.dataset} (revision {source.revision}, split {source.split})"
    return f"demo ({source.rows} generated problems, seed {source.seed})"


def source_file(source: Source) -> Path:
    """The absolute path of a kind="file" source; `PipelineError` unless a file stands there."""
    path = _absolute(source)
    if path.is_file():
        return path
    problem = "is a folder, not a file" if path.is_dir() else "does not exist"
    raise PipelineError(
        f"source file {path} {problem}; set source.path, or ERNIE_PIPELINE_SOURCE, to a JSONL or Parquet file"
    )


def _absolute(source: Source) -> Path:
    return Path(source.path).expanduser().absolute()


def _file_hash(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise PipelineError(f"source file {path} cannot be read ({error.strerror}); make it readable") from error


def _hub_commit(dataset: str, revision: str) -> str:
    import httpx  # what huggingface_hub raises when there is no network
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        commit = HfApi().dataset_info(dataset, revision=revision, timeout=HUB_TIMEOUT_S).sha
    except GatedRepoError as error:  # a kind of RepositoryNotFoundError, so it comes first
        raise PipelineError(
            f"data set {dataset} is gated; accept its terms on the hub and set HF_TOKEN to a token of that account"
        ) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise PipelineError(
            f"data set {dataset} is not on the hub; check source.dataset, or set HF_TOKEN if it is private"
        ) from error
    except RevisionNotFoundError as error:
        raise PipelineError(
            f"data set {dataset} has no revision {revision!r}; set source.revision to a branch, tag or commit of it"
        ) from error
    except (OSError, httpx.HTTPError) as error:
        raise PipelineError(
            f"the hub did not answer for data set {dataset} ({error}); check the network and HF_HUB_OFFLINE, "
            "or set source.revision to a full commit"
        ) from error
    if commit is None or not COMMIT.fullmatch(commit):
        raise PipelineError(f"the hub gave no commit for data set {dataset} at {revision!r}; try again")
    return commit
