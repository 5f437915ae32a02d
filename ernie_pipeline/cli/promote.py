"""`promote` and `rollback`: another version becomes the champion, once it is verified."""

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

from ernie_pipeline.cli.output import FRESH, AsJson
from ernie_pipeline.cli.settings_options import with_options
from ernie_pipeline.cli.verification import Depth
from ernie_pipeline.cli.verify import (
    STATUS,
    Answers,
    Files,
    ModelToMove,
    Rebuild,
    depth_of,
    settings_with_registry,
    verified,
)
from ernie_pipeline.recipe.home import check_rights
from ernie_pipeline.recipe.settings import Settings
from ernie_pipeline.registry.aliases import Move, before_champion, champion_now, make_champion
from ernie_pipeline.registry.tracking import connected
from ernie_pipeline.registry.verification.version import Version, find_version
from ernie_pipeline.store.history import builds
from ernie_pipeline.store.shared.settled import open_store

if TYPE_CHECKING:
    from mlflow import MlflowClient

Choice = tuple[Version, str | None]
"""The version that is to be champion, and the one that is it now."""


def promote(
    model: ModelToMove,
    answers: Answers = 0,
    files: Files = False,
    rebuild: Rebuild = False,
    as_json: AsJson = False,
) -> int:
    """Make a version the champion if it passes verification; exit status as `verify`, and nothing is moved
    unless that is 0."""

    def choose(client: "MlflowClient", own_name: str) -> Choice:
        version = find_version(client, model, own_name)
        return version, champion_now(client, version.name)

    return _move(choose, depth_of(answers, files, rebuild), as_json, back=False)


def rollback(answers: Answers = 0, files: Files = False, rebuild: Rebuild = False, as_json: AsJson = False) -> int:
    """Make the version that was champion before the present one the champion again, if it passes verification."""

    def choose(client: "MlflowClient", own_name: str) -> Choice:
        now, before = before_champion(client, own_name)
        return find_version(client, before, own_name), now

    return _move(choose, depth_of(answers, files, rebuild), as_json, back=True)


def _move(choose: "Callable[[MlflowClient, str], Choice]", depth: Depth, as_json: bool, back: bool) -> int:
    settings = settings_with_registry()
    check_rights(settings.home, to_write=True)  # to verify takes long, and the move is written down there
    own_name = settings.load_recipe().registry.model_name
    with connected(settings.tracking_uri) as client:
        version, champion = choose(client, own_name)
        report = verified(settings, client, version, depth, aloud=not as_json)
        move = None
        if report.outcome == "passed":
            store = open_store(settings, for_run=True)
            settings.make_home()
            move = make_champion(store, client, version.name, version.version, instead_of=champion, back=back)
    sentence = _sentence(version, champion, move, back)
    if move and not back and (refused := _refused_by_gate(settings, version)):
        sentence += f"\nThe gate had not let it become champion: {refused}"
    moved = {"before": move.before, "now": move.now} if move else None
    values = {**report.as_json(), "champion": moved, "said": sentence}
    print(json.dumps(values, indent=1) if as_json else f"\n{report.sentence}\n{sentence}")
    return STATUS[report.outcome] if move is None else FRESH


def _refused_by_gate(settings: Settings, version: Version) -> str:
    """Why the gate did not pass when the version was registered; "" where it did, or this home does not know."""
    stage, store = "registered_model", open_store(settings, for_run=False)
    for build in builds(store, stage):
        artifact = store.find(stage, build["fingerprint"])[0]
        said = artifact.json("registration.json") if artifact else {}
        if (said.get("name"), str(said.get("version"))) == (version.name, version.version):
            return "" if said.get("promoted", True) else " ".join(said.get("reasons", ()))
    return ""


def _sentence(version: Version, champion: str | None, move: Move | None, back: bool) -> str:
    now = f"version {champion}" if champion else "none"
    if move is None:
        return f"Nothing was moved: the champion of {version.name} is {now}, as before."
    if move.before == move.now:
        return f"Nothing had to be moved: the champion of {version.name} is {now} already."
    # of a rollback, another one would go further back, or find nothing
    undo = with_options(f"ernie promote {move.before}" if back else "ernie rollback")
    undone = f'; "{undo}" goes back' if move.before else ""
    return f"The champion of {version.name} was {now}, and is version {move.now} now{undone}."
