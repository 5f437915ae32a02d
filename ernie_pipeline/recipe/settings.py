"""Settings: where and how things run. They come from the environment and never enter a fingerprint."""

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from ernie_pipeline.recipe.home import check_rights, refusal, share_with_group
from ernie_pipeline.recipe.home_format import check_format, write_format
from ernie_pipeline.recipe.load import load_recipe
from ernie_pipeline.recipe.sections import Recipe
from ernie_pipeline.recipe.side_by_side import VARIABLE, named
from ernie_pipeline.utils.address import public_uri
from ernie_pipeline.utils.errors import PipelineError

DATABASES = frozenset({"postgresql", "mysql", "mssql"})

REGISTRY_SCHEMES = DATABASES | {"http", "https", "databricks", "databricks-uc", "uc"}
"""Where MLflow keeps a model registry besides SQLite: mlflow/tracking/_model_registry/utils.py."""

BUCKETS = ("s3", "s3a", "gs", "az", "abfs", "abfss")
"""Schemes of addresses of buckets that have conditional writes."""

ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/")
"""What begins so is an address, or was meant for one ("s3:/bucket"): as a folder, nobody would look for it."""

MOST_SECONDS = 7 * 24 * 3600
"""A week. Who waits for the lease of a machine that is gone waits as long as that."""

ESCAPE = re.compile("%[0-9A-Fa-f]{2}")
"""MLflow 3.17 opens a local model's folder by its path with these undone (`Model.load`), so it finds none there."""


@dataclass(frozen=True)
class Settings:
    """`home` holds the store, MLflow's SQLite database and its artifacts.

    `address`: of the bucket in which the store is; then `home` is this machine's cache of it. `lease_seconds`: how long
    a machine that no longer answers keeps others there from building what it was building.

    `recipes`: those that stand side by side in Dagster; none where `recipe` is the only one.

    `gpu`: the file with the resource gpu's settings. `mlflow_ui`: where people see MLflow's web pages.
    `cron`, in `timezone`: when the schedule refreshes; `sensor_seconds`: how often the sensor looks at the sources.
    """

    home: Path
    recipe: str
    source: str | None
    tracking_uri: str
    execution: str | None = None
    gpu: str | None = None
    cron: str = "0 2 * * *"
    timezone: str = "UTC"
    sensor_seconds: int = 300
    address: str | None = None
    lease_seconds: int = 60
    mlflow_ui: str = "http://127.0.0.1:5000"
    recipes: tuple[str, ...] = ()

    @classmethod
    def from_environment(cls) -> "Settings":
        """Those of ERNIE_PIPELINE_HOME, _CACHE, _LEASE_SECONDS, _RECIPE, _RECIPES, _SOURCE, _EXECUTION, _GPU, _CRON,
        _TIMEZONE, _SENSOR_SECONDS and _MLFLOW_UI, and MLFLOW_TRACKING_URI.

        Raises `PipelineError` for a number of seconds that is none; Dagster judges the cron expression and the zone.
        """
        address, home = _home(os.environ.get("ERNIE_PIPELINE_HOME") or ".ernie")
        return cls(
            home=home,
            recipe=os.environ.get("ERNIE_PIPELINE_RECIPE") or "demo",
            source=os.environ.get("ERNIE_PIPELINE_SOURCE") or None,
            execution=os.environ.get("ERNIE_PIPELINE_EXECUTION") or None,
            gpu=os.environ.get("ERNIE_PIPELINE_GPU") or None,
            tracking_uri=os.environ.get("MLFLOW_TRACKING_URI") or ("" if address else sqlite_uri(home / "mlflow.db")),
            cron=os.environ.get("ERNIE_PIPELINE_CRON") or cls.cron,
            timezone=os.environ.get("ERNIE_PIPELINE_TIMEZONE") or cls.timezone,
            sensor_seconds=_seconds("ERNIE_PIPELINE_SENSOR_SECONDS", cls.sensor_seconds),
            address=address,
            lease_seconds=_seconds("ERNIE_PIPELINE_LEASE_SECONDS", cls.lease_seconds),
            recipes=named(os.environ.get(VARIABLE) or ""),
            mlflow_ui=os.environ.get("ERNIE_PIPELINE_MLFLOW_UI") or _mlflow_ui(),
        )

    @property
    def store(self) -> Path:
        """Where the artifacts are: `<store>/<stage>/<fingerprint>/`."""
        return self.home / "store"

    @property
    def compiled(self) -> Path:
        """Where kernels that were compiled for a GPU are kept for the next process."""
        return self.store / ".compiled"

    @property
    def artifact_root(self) -> Path | None:
        """Where MLflow puts files beside its SQLite database; None where a server decides."""
        return self.home / "mlartifacts" if self.tracking_uri.startswith("sqlite:") else None

    def check_places(self) -> None:
        """Raise `PipelineError` for a home or an MLflow address that cannot work, before any work is done for them, and
        for a home that a newer version of this package has written in."""
        if self.address:
            _check_address(self.address, self.tracking_uri)
        variable = "ERNIE_PIPELINE_CACHE" if self.address else "ERNIE_PIPELINE_HOME"
        nearest = next(place for place in (self.home, *self.home.parents) if os.path.lexists(place))
        if not nearest.is_dir():
            raise PipelineError(
                f"{variable} = {str(self.home)!r} cannot be a folder, because {nearest} is a file; "
                "set it to a folder, or to one that can be made"
            )
        check_rights(self.home, to_write=False)
        check_format(self.store)
        if self.artifact_root and (escape := ESCAPE.search(str(self.home))):
            raise PipelineError(
                f"{variable} = {str(self.home)!r} has {escape[0]!r} in it, which MLflow takes for an escaped "
                "character when it loads a model from there; set it to a folder without"
            )
        address = public_uri(self.tracking_uri)
        if not _keeps_a_registry(self.tracking_uri):
            raise PipelineError(
                f"MLFLOW_TRACKING_URI = {address!r} names no place where MLflow keeps a model registry; set it to a "
                "server (http://...) or a database (sqlite:////path/mlflow.db), or unset it for one in the home"
            )
        if driver := _missing_driver(self.tracking_uri):
            raise PipelineError(
                f"MLFLOW_TRACKING_URI = {address!r} needs the Python module {driver}, which is not installed here; "
                "install it, or name another one in the address (postgresql+psycopg2://...)"
            )

    def make_home(self) -> None:
        """Make the home and its store, which says its format. Raises `PipelineError` where they cannot be made, or not
        be written, and for a format that is newer than this package.

        A home in which its group may write is shared: from now on this process makes nothing for its user alone.
        """
        try:
            self.home.mkdir(parents=True, exist_ok=True)
            share_with_group(self.home)
            self.store.mkdir(exist_ok=True)
        except PermissionError:
            raise refusal(self.home, self.home, "write") from None
        except OSError as error:
            raise PipelineError(
                f"ERNIE_PIPELINE_HOME = {str(self.home)!r} cannot be written ({error.strerror}); set it to a "
                "folder that can"
            ) from None
        check_rights(self.home, to_write=True)
        write_format(self.store)

    def load_recipe(self) -> Recipe:
        """The recipe that these settings name. Raises `PipelineError`."""
        return load_recipe(self.recipe, self.source, self.execution)


def sqlite_uri(file: Path) -> str:
    """MLflow's address of an SQLite file, whatever is in its path: SQLAlchemy ends the path at "?" and undoes %20."""
    return "sqlite:///" + str(file).replace("%", "%25").replace("?", "%3F").replace("#", "%23")


def _mlflow_ui() -> str:
    """A server's own address, without what is secret in it; for a database that of `mlflow ui`."""
    uri = os.environ.get("MLFLOW_TRACKING_URI") or ""
    return public_uri(uri) if uri.startswith(("http://", "https://")) else Settings.mlflow_ui


def _keeps_a_registry(uri: str) -> bool:
    """Whether MLflow opens a registry at such an address, and a second process opens the same one.

    MLflow refuses folders ("./mlruns", "file:...") unless MLFLOW_ALLOW_FILE_STORE says otherwise.
    """
    scheme = uri.partition(":")[0].partition("+")[0]  # "postgresql+psycopg://..."
    if scheme == "sqlite":
        return uri.partition("://")[2].partition("?")[0] not in ("", "/", "/:memory:")
    if scheme == "file" or (":" not in uri and scheme not in REGISTRY_SCHEMES):
        return os.environ.get("MLFLOW_ALLOW_FILE_STORE", "").lower() in ("true", "1")
    return scheme in REGISTRY_SCHEMES


def _missing_driver(uri: str) -> str:
    """The Python module with which SQLAlchemy would open a database there, if it is not installed; else ""."""
    if uri.partition(":")[0].partition("+")[0] not in DATABASES:
        return ""
    from sqlalchemy.engine import make_url  # a third of a second
    from sqlalchemy.exc import SQLAlchemyError

    try:
        make_url(uri).get_dialect().import_dbapi()
    except ModuleNotFoundError as error:
        return str(error.name)
    except SQLAlchemyError:
        return ""  # whatever else is wrong with it, MLflow tells
    return ""


def _home(value: str) -> tuple[str | None, Path]:
    """The address of a bucket, if it is one, and the local folder: the home, or this machine's cache of it."""
    if "://" not in value:
        return None, _folder("ERNIE_PIPELINE_HOME", value, f"a bucket's address is {BUCKETS[0]}://bucket/folder")
    address = value.rstrip("/")
    if cache := os.environ.get("ERNIE_PIPELINE_CACHE"):
        return address, _folder("ERNIE_PIPELINE_CACHE", cache, "the cache of a bucket is on this machine")
    from platformdirs import user_cache_path

    name = hashlib.sha256(address.encode()).hexdigest()[:16]  # of two buckets, each has one of its own
    return address, user_cache_path("ernie_pipeline", appauthor=False) / "homes" / name


def _folder(variable: str, value: str, why: str) -> Path:
    """The folder that the variable names. Raises `PipelineError` for an address, which may have a secret in it."""
    if found := ADDRESS.match(value):
        raise PipelineError(f"{variable} begins with {found[0]!r}, so it names no folder, and {why}; correct it")
    return Path(value).expanduser().absolute()


def _check_address(address: str, tracking_uri: str) -> None:
    """Raise `PipelineError` for a home that is no bucket's address, or without an MLflow that others reach too."""
    scheme, _, rest = address.partition("://")
    if "@" in rest or "?" in rest:
        raise PipelineError(
            f"ERNIE_PIPELINE_HOME = '{scheme}://...' has more in it than a bucket and a folder; set credentials in the "
            "environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY) and a server's address in AWS_ENDPOINT_URL"
        )
    if scheme not in BUCKETS or not rest:
        raise PipelineError(
            f"ERNIE_PIPELINE_HOME = {address!r} is neither a folder nor a bucket's address ({', '.join(BUCKETS)} with "
            "://bucket/folder); set it to one"
        )
    if not tracking_uri:
        raise PipelineError(
            f"ERNIE_PIPELINE_HOME = {address!r} is shared, but MLflow's database cannot be in a bucket; set "
            "MLFLOW_TRACKING_URI to a server that all machines reach, or to sqlite:////path/mlflow.db if there is one"
        )


def _seconds(variable: str, default: int) -> int:
    text = os.environ.get(variable) or str(default)
    if not text.isdecimal() or int(text) < 1:
        raise PipelineError(f"{variable} = {text!r} is not a whole number of seconds above 0; set one")
    if float(text) > MOST_SECONDS:
        raise PipelineError(f"{variable} = {text!r} is more than a week; set {MOST_SECONDS} or less")
    return int(text)
