"""What stands and is fresh, and yet is not what somebody hoped for."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from ernie_pipeline.recipe.settings import Settings
from ernie_pipeline.staleness.plan import RefreshPlan
from ernie_pipeline.store.artifacts import ArtifactStore
from ernie_pipeline.utils.errors import PipelineError

REGISTERED = "registered_model"


def gate_warnings(plan: RefreshPlan, settings: Settings, command: Callable[[str], str] = str) -> list[str]:
    """Why what is registered is no champion; none where it is, or was made one since, or where nothing is registered.

    `plan`: that of the settings' recipe; `command`: writes a command of ours as it is to be typed here.
    """
    planned = next(asset for asset in plan.assets if asset.asset == REGISTERED)
    if planned.state != "fresh":
        return []
    artifact = ArtifactStore(settings.store).find(planned.asset, planned.fingerprint or "")[0]
    return refused_words(artifact.json("registration.json"), settings.tracking_uri, command) if artifact else []


def refused_words(said: dict[str, Any], tracking_uri: str, command: Callable[[str], str] = str) -> list[str]:
    """The sentence of a registration, the values of registration.json, whose gate did not pass; else none."""
    if said.get("promoted", True) or is_champion(said, tracking_uri):
        return []
    name, version, reasons = said["name"], said["version"], " ".join(said["reasons"])
    return [
        f"{name} {version} is no champion, for the gate did not pass: {reasons} To make it one all the same: "
        + command(f"ernie promote {version}")
    ]


def is_champion(said: dict[str, Any], tracking_uri: str) -> bool:
    """Whether the registry calls it so now; False where the registry does not answer."""
    from ernie_pipeline.registry.lookup import aliases_now

    with suppress(PipelineError):
        return "champion" in (aliases_now(tracking_uri, said["name"], str(said["version"])) or ())
    return False
