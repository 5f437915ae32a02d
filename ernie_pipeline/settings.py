"""Settings: where and how things run. They come from the environment and never enter a fingerprint."""

import os
from dataclasses import dataclass
from pathlib import Path

from ernie_pipeline.recipe import Recipe, load_recipe


@dataclass(frozen=True)
class Settings:
    """`home` holds the store, MLflow's SQLite database and its artifacts."""

    home: Path
    recipe: str
    source: str | None
    tracking_uri: str

    @classmethod
    def from_environment(cls) -> "Settings":
        """ERNIE_PIPELINE_HOME, ERNIE_PIPELINE_RECIPE, ERNIE_PIPELINE_SOURCE, and MLflow's own MLFLOW_TRACKING_URI."""
        home = Path(os.environ.get("ERNIE_PIPELINE_HOME") or ".ernie").expanduser().absolute()
        return cls(
            home=home,
            recipe=os.environ.get("ERNIE_PIPELINE_RECIPE") or "demo",
            source=os.environ.get("ERNIE_PIPELINE_SOURCE") or None,
            tracking_uri=os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home / 'mlflow.db'}",
        )

    @property
    def store(self) -> Path:
        """Where the artifacts are: `<store>/<stage>/<fingerprint>/`."""
        return self.home / "store"

    @property
    def artifact_root(self) -> Path | None:
        """Where MLflow puts files beside its SQLite database; None where a server decides."""
        return self.home / "mlartifacts" if self.tracking_uri.startswith("sqlite:") else None

    def load_recipe(self) -> Recipe:
        """The recipe that these settings name. Raises `PipelineError`."""
        return load_recipe(self.recipe, self.source)
