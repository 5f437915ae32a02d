"""The alias champion, moved on purpose: one mover at a time, the version before kept in a tag, never none or two.

MLflow keeps an alias as one row of a table, with one version: to set it is to move it, in one step.
"""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ernie_pipeline.registry.registered_names import check_name
from ernie_pipeline.registry.tracking import BEFORE, GIVEN_UP
from ernie_pipeline.store.artifacts import ArtifactStore
from ernie_pipeline.utils.errors import PipelineError

if TYPE_CHECKING:
    from mlflow import MlflowClient

CHAMPION = "champion"


@dataclass(frozen=True)
class Move:
    """Which version was champion, None for none, and which one is it now."""

    before: str | None
    now: str


def sole_mover(store: ArtifactStore) -> AbstractContextManager[None]:
    """Hold the store's lock of the aliases; wait for whoever moves one now, which takes seconds."""
    return store.sole_builder("registered_model", "aliases", lambda _: None)


def champion_now(client: "MlflowClient", name: str) -> str | None:
    """The version that is champion, None for none. Raises what MLflow does for a model that is not there."""
    holder = client.get_registered_model(name).aliases.get(CHAMPION)
    return None if holder is None else str(holder)


def before_champion(client: "MlflowClient", name: str) -> tuple[str, str]:
    """The champion, and the version that was it before. Raises `PipelineError` where there is no such."""
    check_name(client, name)
    now = champion_now(client, name)
    if now is None:
        raise PipelineError(f"{name} has no champion, so there is none to roll back; promote a version")
    before = client.get_model_version(name, now).tags.get(BEFORE)
    if not before:
        raise PipelineError(f"version {now} of {name} is the first champion: there is no earlier one to go back to")
    return now, str(before)


def make_champion(
    store: ArtifactStore, client: "MlflowClient", name: str, version: str, *, instead_of: str | None, back: bool
) -> Move:
    """Make a version the champion, and remember which one it was before; `back`: as a rollback, which remembers none.

    Raises `PipelineError` where the champion is not `instead_of` any more: another has moved it meanwhile.
    """
    with sole_mover(store):
        champion = champion_now(client, name)
        if champion != instead_of:
            raise PipelineError(
                f"the champion of {name} was moved from {instead_of or 'none'} to {champion or 'none'} meanwhile; "
                "nothing was changed, look again"
            )
        if champion == version:
            return Move(champion, version)
        if champion is not None:
            client.set_model_version_tag(name, champion, GIVEN_UP, version)
            if not back:
                client.set_model_version_tag(name, version, BEFORE, champion)
        client.set_registered_model_alias(name, CHAMPION, version)
        client.delete_model_version_tag(name, version, GIVEN_UP)
        return Move(champion, version)
