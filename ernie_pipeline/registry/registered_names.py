"""The names in a registry: whoever misspells one is told of the nearest."""

from typing import TYPE_CHECKING

from ernie_pipeline.utils.near import did_you_mean

if TYPE_CHECKING:
    from mlflow import MlflowClient

LISTED = 10


def unknown_name(client: "MlflowClient", name: str) -> str:
    """That the registry has no model of the name, and which was meant perhaps, in a clause; "" where it has one."""
    names = sorted(str(each.name) for each in client.search_registered_models())
    if name in names:
        return ""
    more = ", ..." if len(names) > LISTED else ""
    listed = f"there are {', '.join(names[:LISTED])}{more}" if names else "it has none yet; register one with ernie run"
    return f"the registry has no model {name!r}; {did_you_mean(name, names) or listed}"
