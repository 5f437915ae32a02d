"""How MLflow names a version of a registered model: models:/NAME@ALIAS and models:/NAME/VERSION."""

import re
from dataclasses import dataclass

from ernie_pipeline.utils.errors import PipelineError

MODELS = "models:/"
FORMS = "models:/NAME@ALIAS (such as models:/NAME@champion), models:/NAME/VERSION"
NAMED = re.compile(r"models:/(?P<name>[^@/:]+)(?:@(?P<alias>[^@/]+)|/(?P<version>\d+))")
"""MLflow allows neither "/" nor ":" in a model's name."""


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


def parse_model_uri(text: str, own_name: str = "") -> Named:
    """What `text` names; where there is an `own_name`, a number alone is a version of it.

    Raises `PipelineError` for what is no such name.
    """
    if own_name and text.isdecimal():
        return Named(own_name, version=text)
    if match := NAMED.fullmatch(text):
        return Named(match["name"], match["alias"] or "", match["version"] or "")
    forms = f"{FORMS} or VERSION" if own_name else FORMS.replace(", ", " or ")
    raise PipelineError(f"{text!r} names no version of a registered model; write {forms}")
