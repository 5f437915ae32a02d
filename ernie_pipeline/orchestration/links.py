"""Addresses that a page links to: MLflow's pages of a run, a model and a version, and the hub's of what is read."""

from pathlib import Path
from typing import Any
from urllib.parse import quote

import dagster as dg

from ernie_pipeline.recipe.settings import Settings
from ernie_pipeline.registry.mlflow_pages import CHARTS, TABLES, how_to_look, page
from ernie_pipeline.utils.address import SQLITE, public_uri

HUB = "https://huggingface.co"
LINK = "version in MLflow"
"""What the first link to MLflow is called."""


def mlflow_links(settings: Settings, registration: dict[str, Any]) -> dict[str, Any]:
    """Of the values of registration.json: version, model and run in the web pages of MLflow, and base and adapter there
    side by side.

    For a database those of `mlflow ui`, and how it is started; `Settings.mlflow_ui` says where they are.
    """
    root, name = settings.mlflow_ui.rstrip("/"), quote(registration["name"], safe="")
    version, run = registration["version"], registration["run_id"]
    runs = f"experiments/{registration['experiment_id']}/runs"
    more = {  # a whole address of a run is too wide
        "the model": page(f"models/{name}"),
        "the run": page(f"{runs}/{run}"),
        "its figures beside the base's": page(runs, **CHARTS),
        "its answers beside the base's": page(runs, **TABLES),
    }
    return {
        LINK: dg.MetadataValue.url(f"{root}/{page(f'models/{name}/versions/{version}')}"),
        "and there": dg.MetadataValue.md(", ".join(f"[{words}]({root}/{at})" for words, at in more.items())),
        **({"MLflow is shown by": shown_by} if (shown_by := _start(settings)) else {}),
    }


def _start(settings: Settings) -> str:
    uri = public_uri(settings.tracking_uri)
    if uri.startswith(SQLITE):
        uri = f"{SQLITE}{Path(uri.removeprefix(SQLITE)).absolute()}"  # whoever copies it is elsewhere
    return how_to_look(uri)


def hub_link(kind: str, name: str, version: str) -> dg.UrlMetadataValue:
    """The files of a hub repository at the commit of a version "commit:<40 hex>". `kind`: "dataset" or "model"."""
    place = f"{HUB}/datasets/{name}" if kind == "dataset" else f"{HUB}/{name}"
    return dg.MetadataValue.url(f"{place}/tree/{version.removeprefix('commit:')}")
