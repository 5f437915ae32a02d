"""How a version of a registered model is named: by an alias or a number, or as MLflow does."""

import re
from dataclasses import dataclass

from ernie_pipeline.utils.errors import PipelineError

MODELS = "models:/"
FORMS = "an alias (champion), a version's number, models:/NAME@ALIAS or models:/NAME/VERSION"
NAMED = re.compile(r"models:/(?P<name>[^@/:]+)(?:@(?P<alias>[^@/]+)|/(?P<version>\d+))")
"""MLflow allows neither "/" nor ":" in a model's name."""
ALIAS = re.compile(r"[\w-]+")
"""What MLflow allows an alias to be, besides a number."""


@dataclass(frozen=True)
class Named:
    """A version of the model `name`: that with the alias, or that with the number; the other is ""."""

    name: str
    alias: str = ""
    version: str = ""

    @property
    def uri(self) -> str:
        """As MLflow writes it."""
        return f"{MODELS}{self.name}" + (f"@{self.alias}" if self.alias else f"/{self.version}")


def parse_model_uri(text: str, own_name: str) -> Named:
    """What `text` names; a number or an alias alone is of the model `own_name`.

    Raises `PipelineError` for what is no such name.
    """
    if text.isdecimal():
        return Named(own_name, version=text)
    if ALIAS.fullmatch(text):
        return Named(own_name, alias=text)
    if match := NAMED.fullmatch(text):
        return Named(match["name"], match["alias"] or "", match["version"] or "")
    raise PipelineError(f"{text!r} names no version of a registered model; name {FORMS}")
