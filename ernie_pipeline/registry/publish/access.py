"""The way to the hub: whether the recipe's repository can be written now, and each refusal in a sentence.

The token is the hub's own matter: `huggingface_hub` takes it from HF_TOKEN, or from a login on this machine, puts it
into its requests, and it is nowhere else.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ernie_pipeline.recipe.sections import Publish
from ernie_pipeline.registry.provenance import PROVENANCE
from ernie_pipeline.utils.errors import PipelineError, first_line

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

TOKEN = "HF_TOKEN"
ASKED_S, UPLOADED_S = 30.0, 600.0
"""How long the hub may be silent: when it is asked something, and when it makes a commit of what it was sent."""
UNTOUCHED = frozenset({".gitattributes", "README.md"})
"""What the hub, or its page for a new model, puts into a repository by itself."""
ROLES_THAT_WRITE = ("admin", "write", "contributor")


@dataclass(frozen=True)
class Target:
    """The repository as it is now. `head`: its newest commit, None where there is no such repository yet; `files`: the
    paths that it holds."""

    repo: str
    head: str | None
    files: frozenset[str] = frozenset()


def hub_api() -> "HfApi":
    """The hub that HF_ENDPOINT names, by its own client."""
    from huggingface_hub import HfApi

    return HfApi(library_name="ernie_pipeline")


def check_access(publish: Publish) -> Target:
    """The repository, if this machine's token may write it. Raises `PipelineError` with what stands against it."""
    with hub_answers(publish.repo):
        api = hub_api()
        _check_token(api.whoami(), publish.repo)
        target = _look(api, publish)
        if target.head:
            api.auth_check(publish.repo, write=True)
    return target


def check_tag(publish: Publish, target: Target) -> bool:
    """Whether the tag is at the newest commit: then a run may have been cut off between its publication and the record
    of it, and `upload` sees whether that commit is the same.

    Raises `PipelineError` where the tag is at another: it stands for what was published with it.
    """
    if not publish.tag or target.head is None:
        return False
    with hub_answers(publish.repo):
        tagged = {tag.name: tag.target_commit for tag in hub_api().list_repo_refs(publish.repo).tags}
    if tagged.get(publish.tag, target.head) != target.head:
        raise tag_is_taken(publish)
    return publish.tag in tagged


def tag_is_taken(publish: Publish) -> PipelineError:
    """What is said where the tag stands for something else."""
    return PipelineError(
        f"{publish.repo} has a tag {publish.tag} already, which is never moved; set publish.tag to another, or "
        "leave it out"
    )


@contextmanager
def hub_answers(repo: str, within_s: float = ASKED_S) -> Iterator[None]:
    """What the hub, or the way to it, refuses, as a `PipelineError` in the original's place.

    So is one that does not answer a request, or take the next bytes of one, `within_s` seconds; its library waits on.
    """
    import httpx
    from huggingface_hub import get_session
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

    session = get_session()
    before, session.timeout = session.timeout, httpx.Timeout(within_s)
    try:
        yield
    except LocalTokenNotFoundError:
        raise PipelineError(
            f"there is no token to publish to {repo} with; set {TOKEN} to one that may write, or run `hf auth login`"
        ) from None
    except OfflineModeIsEnabled:
        raise PipelineError(f"nothing can be published to {repo} while HF_HUB_OFFLINE is set; unset it") from None
    except HfHubHTTPError as error:
        raise PipelineError(_refusal(error, repo)) from None
    except (OSError, httpx.HTTPError, RuntimeError) as error:  # the last: what huggingface_hub makes of a broken upload
        raise PipelineError(_of_cause(error, repo)) from None
    except ValueError as error:  # and of metadata that the hub does not take
        said = " ".join(str(error).split())[:500]
        raise PipelineError(f"the hub does not take what is to be published to {repo}: {said}") from None
    finally:
        session.timeout = before


def _check_token(user: Mapping[str, Any], repo: str) -> None:
    """`user`: the hub's answer to who asks. Raises `PipelineError` unless that may write in the namespace."""
    namespace, name = repo.split("/")[0], user["name"]
    role = user.get("auth", {}).get("accessToken", {}).get("role", "")
    if role == "read":
        raise PipelineError(f"the token of {name} may only read, not publish to {repo}; set {TOKEN} to one that writes")
    organizations = {each["name"]: each.get("roleInOrg", "") for each in user.get("orgs", ())}
    if namespace != name and namespace not in organizations:
        raise PipelineError(
            f"{repo} belongs to {namespace}, and the token is {name}'s, who is not a member; set publish.repo to a "
            f"repository of {' or '.join([name, *organizations])}, or {TOKEN} to another token"
        )
    if namespace != name and organizations[namespace] and organizations[namespace] not in ROLES_THAT_WRITE:
        raise PipelineError(
            f"{name} may only {organizations[namespace]} in the organization {namespace}, not publish {repo}; ask its "
            "administrators for the right to write"
        )


def _look(api: "HfApi", publish: Publish) -> Target:
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        found = api.model_info(publish.repo)
    except RepositoryNotFoundError:  # nor one of another's, since the namespace is the token's
        return Target(publish.repo, None)
    files = frozenset(each.rfilename for each in found.siblings or ())
    is_private = bool(found.private)
    if is_private != publish.private:
        now, wanted = ("private", "false") if is_private else ("public", "true")
        raise PipelineError(
            f"{publish.repo} is {now} on the hub, and publish.private = {wanted}; change one of the two"
        )
    if PROVENANCE not in files and files - UNTOUCHED:
        raise PipelineError(
            f"{publish.repo} holds files that were not published from here (such as {min(files - UNTOUCHED)}), which "
            "would be mixed with the model's; set publish.repo to another repository"
        )
    return Target(publish.repo, found.sha, files)


def _refusal(error: "HfHubHTTPError", repo: str) -> str:
    status = error.response.status_code
    said = " ".join((error.server_message or "").split())[:300]
    if status == 401:
        return f"the hub does not accept the token for {repo} (401); set {TOKEN} to a valid one that may write there"
    if status == 403:
        return f"the token may not write to {repo} (403{': ' * bool(said)}{said}); set {TOKEN} to one that may"
    if status in (409, 412):
        return f"{repo} was changed by somebody else meanwhile ({status}); nothing of this was published, run again"
    if status == 404:
        return f"{repo} is not on the hub, or not for this token; set publish.repo and {TOKEN} to ones that fit"
    return f"the hub did not do what was asked for {repo} ({status}{': ' * bool(said)}{said}); try again later"


def _of_cause(error: BaseException, repo: str) -> str:
    """The first of an error's causes that the hub itself gave, or that the way to it did."""
    from huggingface_hub.errors import HfHubHTTPError

    inner: BaseException = error
    while inner.__cause__ is not None:
        inner = inner.__cause__
        if isinstance(inner, HfHubHTTPError):
            return _refusal(inner, repo)
    return (
        f"the hub did not answer for {repo} ({type(inner).__name__}: {first_line(inner)}); check the network and "
        "HF_ENDPOINT"
    )
