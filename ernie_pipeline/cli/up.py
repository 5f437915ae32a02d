"""`up`: all that is looked at, on one home, until interrupted."""

from typing import Annotated

import typer

from ernie_pipeline.recipe.settings import Settings

Port = Annotated[int, typer.Option(min=1, max=65535, metavar="PORT", help="of Dagster's pages")]
MlflowPort = Annotated[int, typer.Option(min=1, max=65535, metavar="PORT", help="of MLflow's")]


def up(port: Port = 3000, mlflow_port: MlflowPort = 5000) -> int:
    """Start Dagster's pages with its daemon, and MLflow's where its database is a file, on 127.0.0.1."""
    from ernie_pipeline.orchestration.up import up as start

    return start(Settings.from_environment(), port, mlflow_port)
