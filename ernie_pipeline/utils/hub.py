"""The hub's answer to one question: which commit a branch or a tag stands for now."""

import re
from typing import Literal

from ernie_pipeline.utils.errors import PipelineError, first_line

COMMIT = re.compile(r"[0-9a-f]{40}")
HUB_TIMEOUT_S = 30.0
NAMES = {"dataset": "data set", "model": "base model"}


def hub_commit(kind: Literal["dataset", "model"], name: str, revision: str, name_key: str, revision_key: str) -> str:
    """The commit (40 hex digits) of `revision`, a branch, tag or commit of the repository `name`.

    A full commit needs no network. Raises `PipelineError` when the hub refuses or does not answer; `name_key` and
    `revision_key` say there which recipe keys to correct.
    """
    if COMMIT.fullmatch(revision):
        return revision
    import httpx  # what huggingface_hub raises when there is no network
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    what = f"{NAMES[kind]} {name}"
    ask = HfApi().dataset_info if kind == "dataset" else HfApi().model_info
    try:
        commit = ask(name, revision=revision, timeout=HUB_TIMEOUT_S).sha
    except GatedRepoError as error:  # a kind of RepositoryNotFoundError, so it comes first
        raise PipelineError(
            f"{what} is gated; accept its terms on the hub and set HF_TOKEN to a token of that account"
        ) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise PipelineError(f"{what} is not on the hub; check {name_key}, or set HF_TOKEN if it is private") from error
    except RevisionNotFoundError as error:
        raise PipelineError(
            f"{what} has no revision {revision!r}; set {revision_key} to a branch, tag or commit of it"
        ) from error
    except (OSError, httpx.HTTPError) as error:  # the hub's other answers and its offline mode are kinds of OSError
        raise PipelineError(
            f"the hub did not answer for {what} ({type(error).__name__}: {first_line(error)}); check the network and "
            f"HF_HUB_OFFLINE, or set {revision_key} to a full commit"
        ) from error
    if commit is None or not COMMIT.fullmatch(commit):
        raise PipelineError(f"the hub gave no commit for {what} at {revision!r}; try again")
    return commit
