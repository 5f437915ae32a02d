"""What a code server has opened, for the processes that it starts: a recipe may have been edited since.

The server plans a run with the assets that it shows, and the run's processes open the code location anew. What the
recipe does not ask for any more has to be there too, for its step to say so; else Dagster cannot make the run at all.
"""

import json
import os
import sys
from collections.abc import Mapping, Sequence

VARIABLE = "ERNIE_PIPELINE_OPENED"
"""In the environment of a code server, which the processes of its runs have from it: its assets by recipe. A server
that is started anew, as at "Reload definitions", has none."""
SERVER = ["api", "grpc"]
"""How Dagster starts one: `dagster api grpc ...`."""


def opened_before(recipe: str) -> list[str]:
    """The assets of the recipe in the server that has started this process; none where none has."""
    assets: dict[str, list[str]] = json.loads(os.environ.get(VARIABLE) or "{}")
    return assets.get(recipe, [])


def hand_on(assets: Mapping[str, Sequence[str]]) -> None:
    """Let the processes that this one starts know, where it is a code server: by recipe, its assets' names."""
    if sys.argv[1:3] == SERVER and VARIABLE not in os.environ:
        os.environ[VARIABLE] = json.dumps({recipe: [*names] for recipe, names in assets.items()})
