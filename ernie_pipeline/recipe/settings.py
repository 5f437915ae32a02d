"""Settings: where and how things run. They come from the environment and never enter a fingerprint."""

import os
from dataclasses import dataclass
from pathlib import Path

from ernie_pipeline.recipe.load import load_recipe
from ernie_pipeline.recipe.sections import Recipe
from ernie_pipeline.store.quantized_base import FOLDER
from ernie_pipeline.utils.errors import PipelineError


@dataclass(frozen=True)
class Settings:
    """`home` holds the store, MLflow's SQLite database and its artifacts.

    `cron`, in `timezone`: when the schedule refreshes; `sensor_seconds`: how often the sensor looks at the sources.
    """

    home: Path
    recipe: str
    source: str | None
    tracking_uri: str
    execution: str | None = None
    cron: str = "0 2 * * *"
    timezone: str = "UTC"
    sensor_seconds: int = 300

    @classmethod
    def from_environment(cls) -> "Settings":
        """ERNIE_PIPELINE_HOME, _RECIPE, _SOURCE, _EXECUTION, _CRON, _TIMEZONE, _SENSOR_SECONDS; MLFLOW_TRACKING_URI.

        Raises `PipelineError` for a number of seconds that is none; Dagster judges the cron expression and the zone.
        """
        home = Path(os.environ.get("ERNIE_PIPELINE_HOME") or ".ernie").expanduser().absolute()
        return cls(
            home=home,
            recipe=os.environ.get("ERNIE_PIPELINE_RECIPE") or "demo",
            source=os.environ.get("ERNIE_PIPELINE_SOURCE") or None,
            execution=os.environ.get("ERNIE_PIPELINE_EXECUTION") or None,
            tracking_uri=os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home / 'mlflow.db'}",
            cron=os.environ.get("ERNIE_PIPELINE_CRON") or cls.cron,
            timezone=os.environ.get("ERNIE_PIPELINE_TIMEZONE") or cls.timezone,
            sensor_seconds=_seconds(os.environ.get("ERNIE_PIPELINE_SENSOR_SECONDS") or str(cls.sensor_seconds)),
        )

    @property
    def store(self) -> Path:
        """Where the artifacts are: `<store>/<stage>/<fingerprint>/`."""
        return self.home / "store"

    @property
    def quantized_bases(self) -> Path:
        """Where base models are kept in 4 bits, each once for all that use it."""
        return self.store / FOLDER

    @property
    def compiled(self) -> Path:
        """Where kernels that were compiled for a GPU are kept for the next process."""
        return self.store / ".compiled"

    @property
    def artifact_root(self) -> Path | None:
        """Where MLflow puts files beside its SQLite database; None where a server decides."""
        return self.home / "mlartifacts" if self.tracking_uri.startswith("sqlite:") else None

    def load_recipe(self) -> Recipe:
        """The recipe that these settings name. Raises `PipelineError`."""
        return load_recipe(self.recipe, self.source, self.execution)


def _seconds(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise PipelineError(
            f"ERNIE_PIPELINE_SENSOR_SECONDS = {text!r} is not a whole number of seconds above 0; set one"
        )
    return int(text)
