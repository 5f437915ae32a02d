"""Addresses of MLflow's web pages.

Since 3.9 or so these open in a mode for agents and their traces, which has no model registry and begins an experiment
with charts of traces. The browser keeps the mode that was chosen last; no tag and no setting of the server does. An
address may name it: then the page opens in the mode for training.
"""

import shlex
from urllib.parse import urlencode

TRAINING = {"workflowType": "machine_learning"}
CHARTS, TABLES = {"compareRunsMode": "CHART"}, {"compareRunsMode": "ARTIFACT"}
"""Of an experiment's page: its runs side by side, in charts of their metrics or in their tables."""


def how_to_look(address: str) -> str:
    """The command that opens the pages of a database, by its public address; "" of a server, which has them."""
    of_server = address.startswith(("http://", "https://"))
    return "" if of_server else f"mlflow ui --backend-store-uri {shlex.quote(address)}"


def page(path: str, **query: str) -> str:
    """Of a server's root: "#/models/NAME" with the mode, and what else is asked of the page."""
    return f"#/{path}?{urlencode({**TRAINING, **query})}"
