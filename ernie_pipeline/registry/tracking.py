"""The way to MLflow: no calls home, no secrets in what it stores or says, and nothing left behind in the process."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit, urlunsplit

from ernie_pipeline.registry.first_opening import open_client
from ernie_pipeline.registry.notes import EXPERIMENT
from ernie_pipeline.utils.address import SQLITE, public_uri, without_secrets
from ernie_pipeline.utils.errors import PipelineError

if TYPE_CHECKING:
    from mlflow import MlflowClient

CHECKED = "check.max_logit_difference"
"""Tag of a version that was loaded back and compared; one without it is unfinished."""
BEFORE = "champion.before"
"""Tag of a version that was made champion: the one that was it before, to which a rollback goes."""
GIVEN_UP = "champion.given_up"
"""Tag of a version from which the alias champion was taken on purpose, so that nobody gives it back by himself."""

DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",  # since 3.2 MLflow reports what is called, and how, to its makers
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_UV_AUTO_DETECT": "false",  # else a uv.lock in the working directory goes into the model
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",  # MLflow's 7 make a wrong address a wait of four minutes
}
"""How MLflow is used here, where the environment does not say otherwise."""

IMPATIENT = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "3"}
"""For what may be left out: a server that does not answer is waited for a few seconds, MLflow's own being 120."""


@contextmanager
def connected(tracking_uri: str, defaults: Mapping[str, str] = MappingProxyType({})) -> Iterator["MlflowClient"]:
    """An `MlflowClient` of the server or database; MLflow's own errors leave as a `PipelineError` without secrets.

    A server's user and password go to MLflow by its environment variables, so that no URL in its messages has them.
    `defaults` go before those of this package, and the environment before both.
    MLflow keeps the address in the process and exports it to its environment: both are put back.
    """
    address, environment = _without_login(tracking_uri)
    with _environment({**DEFAULTS, **defaults}, environment), _without_stray_folders(address):
        import mlflow
        from sqlalchemy.exc import SQLAlchemyError

        os.environ.pop("MLFLOW_TRACKING_URI", None)
        before = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else None
        mlflow.set_tracking_uri(address)
        os.environ["MLFLOW_TRACKING_URI"] = address  # MLflow exports it only when it changes
        try:
            yield open_client(address)
        except (mlflow.exceptions.MlflowException, SQLAlchemyError) as error:
            # "from None": the original, which Dagster would print too, may hold the address of a database in full
            said = _not_let_in(error) or f": {_said(error, tracking_uri)}"
            raise PipelineError(f"MLflow at {public_uri(tracking_uri)}{said}") from None
        finally:
            mlflow.set_tracking_uri(before)


def ensure_experiment(client: "MlflowClient", name: str, artifact_root: Path | None) -> str:
    """The experiment's id; made when missing, its artifacts in `artifact_root` or where the server puts them."""
    import mlflow

    if (found := client.get_experiment_by_name(name)) is None:
        try:
            location = artifact_root.resolve().as_uri() if artifact_root else None
            # the kind: MLflow's page would guess it otherwise; its mode is another matter, see `mlflow_pages`
            described = {"mlflow.note.content": EXPERIMENT, "mlflow.experimentKind": "custom_model_development"}
            return str(client.create_experiment(name, artifact_location=location, tags=described))
        except mlflow.exceptions.MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":  # another run was faster
                raise
            found = client.get_experiment_by_name(name)
    if found.lifecycle_stage != "active":
        raise PipelineError(
            f"MLflow experiment {name!r} was deleted; restore it (`mlflow experiments restore -x "
            f"{found.experiment_id}`) or set registry.experiment to another name"
        )
    return str(found.experiment_id)


@contextmanager
def _without_stray_folders(address: str) -> Iterator[None]:
    """Remove the empty folders that MLflow 3 makes for a database whose address has an escape such as %3F in it.

    Its `_make_parent_dirs_if_sqlite` takes the address for the path; SQLAlchemy, which opens the file, does not.
    """
    mistaken = Path(address.removeprefix(SQLITE).partition("?")[0]).parent if address.startswith(SQLITE) else Path()
    stray = [folder for folder in (mistaken, *mistaken.parents) if not folder.exists()]
    try:
        yield
    finally:
        for folder in stray:
            with suppress(OSError):
                folder.rmdir()


def _without_login(uri: str) -> tuple[str, dict[str, str]]:
    if "@" not in uri or not uri.startswith(("http://", "https://")):
        return uri, {}
    try:
        parts = urlsplit(uri)
    except ValueError:  # such as "Invalid IPv6 URL"
        raise PipelineError(
            f"MLFLOW_TRACKING_URI = {public_uri(uri)!r} is no address; escape what is special in its user and password "
            '(such as "%2F" for "/")'
        ) from None
    if "@" not in parts.netloc:
        return uri, {}
    login = {
        "MLFLOW_TRACKING_USERNAME": unquote(parts.username or ""),
        "MLFLOW_TRACKING_PASSWORD": unquote(parts.password or ""),
    }
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])), login


def _not_let_in(error: Exception) -> str:
    """What to do about a server's own authentication, for its 401 and 403; "" for all else."""
    code = getattr(error, "error_code", "")
    if code == "PERMISSION_DENIED":
        user = os.environ.get("MLFLOW_TRACKING_USERNAME") or "this user"
        return f" does not let {user} do this (403); ask its administrator for the permission"
    if code != "UNAUTHENTICATED":
        return ""
    given = os.environ.get("MLFLOW_TRACKING_USERNAME") or os.environ.get("MLFLOW_TRACKING_TOKEN")
    why = "does not know the login that was given" if given else "asks for a login, and none was given"
    return f" {why} (401); set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"


def _said(error: Exception, tracking_uri: str) -> str:
    return without_secrets(" ".join(str(error).split()), tracking_uri)[:1000]


@contextmanager
def _environment(defaults: dict[str, str], values: dict[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(defaults | before | values)
    try:
        yield
    finally:
        for key in {*defaults, *values, "MLFLOW_TRACKING_URI"}:
            if key in before:
                os.environ[key] = before[key]
            else:
                os.environ.pop(key, None)
