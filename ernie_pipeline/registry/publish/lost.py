"""Whether what was published is on the hub still, and whether what was not is to be now. Asked on every run."""

from collections.abc import Mapping, Sequence
from typing import Any

from ernie_pipeline.registry.aliases import CHAMPION
from ernie_pipeline.registry.lookup import aliases_now, champion_beside
from ernie_pipeline.registry.publish.access import hub_api

Publication = Mapping[str, Any]
"""The values of publication.json."""


def what_is_lost(tracking_uri: str, publication: Publication, newest: Publication | None = None) -> str:
    """ "" or a clause that says why there is something to publish; `newest`: what was last published to its repository.

    A hub that does not answer, or not to whoever asks, says nothing: what was published counts as there. So does a
    commit after which others came. Raises `PipelineError` when the registry does not answer.
    """
    if not publication["published"]:
        name, version = publication["name"], publication["version"]
        is_champion = CHAMPION in (aliases_now(tracking_uri, name, version) or ())
        return f"version {version} of {name} is the champion now, and was not" if is_champion else ""
    if newest and newest["version"] != publication["version"]:
        name, version, repo = publication["name"], publication["version"], publication["repo"]
        if champion_beside(tracking_uri, name, version) == version:
            return f"version {version} of {name} is the champion again, and {repo} has version {newest['version']}"
    return _gone(publication["repo"], publication["commit"], publication["private"])


def last_published(publications: Sequence[Publication], repo: str) -> Publication | None:
    """Of those in the order of their time, the last that went to the repository; None for none."""
    return next((each for each in reversed(publications) if each["published"] and each["repo"] == repo), None)


def what_is_there_instead(tracking_uri: str, newest: Publication | None) -> str:
    """A sentence where the version that was last published is the champion no more, as after a rollback; else "".

    What is published stays: people may use it, and a commit of the hub is found by its hash for ever. Raises
    `PipelineError` when the registry does not answer.
    """
    if newest is None:
        return ""
    champion = champion_beside(tracking_uri, newest["name"], newest["version"])
    if champion in (None, newest["version"]):
        return ""
    return (
        f"what is published in {newest['repo']} is version {newest['version']} of {newest['name']}, and the champion "
        f"is version {champion}: a refresh with the recipe that version {champion} was made by publishes that"
    )


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
