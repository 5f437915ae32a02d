"""Whether what was published is on the hub still, and whether what was not is to be now. Asked on every run."""

from collections.abc import Mapping
from typing import Any

from ernie_pipeline.registry.aliases import CHAMPION
from ernie_pipeline.registry.lookup import aliases_now
from ernie_pipeline.registry.publish.access import hub_api


def what_is_lost(tracking_uri: str, publication: Mapping[str, Any]) -> str:
    """ "" or a clause that says why there is something to publish; `publication`: the values of publication.json.

    A hub that does not answer, or not to whoever asks, says nothing: what was published counts as there. So does a
    commit after which others came. Raises `PipelineError` when the registry does not answer.
    """
    if not publication["published"]:
        name, version = publication["name"], publication["version"]
        is_champion = CHAMPION in (aliases_now(tracking_uri, name, version) or ())
        return f"version {version} of {name} is the champion now, and was not" if is_champion else ""
    return _gone(publication["repo"], publication["commit"], publication["private"])


def _gone(repo: str, commit: str, private: bool) -> str:
    import httpx
    from huggingface_hub import get_token
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    if private and get_token() is None:
        return ""
    try:
        hub_api().model_info(repo, revision=commit, timeout=10)
    except GatedRepoError:
        return ""
    except (RepositoryNotFoundError, RevisionNotFoundError):
        return f"commit {commit[:8]} of {repo} is not on the hub any more, or not for this token"
    except (OSError, httpx.HTTPError):
        return ""
    return ""
