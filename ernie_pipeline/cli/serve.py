"""`serve`: a registered model behind MLflow's agent server, see `registry/serve.py`."""

import os
import socket
import sys
from pathlib import Path
from typing import Annotated

import typer

import ernie_pipeline
from ernie_pipeline.cli.verify import Model, settings_with_registry
from ernie_pipeline.registry.aliases import CHAMPION
from ernie_pipeline.registry.model_uri import parse_model_uri
from ernie_pipeline.registry.tracking import connected
from ernie_pipeline.registry.verification.version import find_version
from ernie_pipeline.utils.errors import PipelineError


def serve(
    model: Model = None,
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="to listen at")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, metavar="PORT", help="to listen at")] = 5001,
) -> int:
    """OpenAI's /v1/chat/completions and /responses. This process becomes the server's."""
    settings = settings_with_registry()
    own_name = settings.load_recipe().registry.model_name
    asked = parse_model_uri(model or CHAMPION, own_name)
    _check_place(host, port)  # before a model is loaded, which may take minutes
    with connected(settings.tracking_uri) as client:
        find_version(client, asked.uri, own_name)  # which tells what is not there
    os.environ["MLFLOW_TRACKING_URI"] = settings.tracking_uri
    script = Path(ernie_pipeline.__file__).parent / "registry" / "serve.py"
    command = [sys.executable, "-P", str(script), asked.uri, "--host", host, "--port", str(port)]
    os.execv(sys.executable, command)  # -P: the code that is served is the one beside the model


def _check_place(host: str, port: int) -> None:
    """Raise `PipelineError` where the server could not listen."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            # as the server does: one that has ended is no hindrance
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise PipelineError(
            f"nothing can listen at {host}, port {port} ({error.strerror}); "
            "give another with --port or --host, or end what listens there"
        ) from error
