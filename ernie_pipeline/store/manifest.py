"""What an artifact's manifest and a line of a stage's history hold, of which types: whoever alters one may seal it."""

from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError
from typing_extensions import TypedDict  # pydantic asks for this one before Python 3.12


class Build(TypedDict):
    """What was built when, from what, in how many seconds: what the history keeps of a manifest."""

    __pydantic_config__ = ConfigDict(strict=True, extra="ignore")  # type: ignore[misc]

    stage: str
    fingerprint: str
    declared_version: str
    inputs: dict[str, str]
    recipe: dict[str, Any]
    modules: dict[str, str]
    libraries: dict[str, str]
    data_version: str
    seconds: float
    built: str


class CheckValues(TypedDict):
    """The values of a `Check`, and no others."""

    __pydantic_config__ = ConfigDict(strict=True, extra="forbid")  # type: ignore[misc]

    name: str
    passed: bool
    description: str
    blocking: bool


class Manifest(Build):
    """And the rest of a manifest but its list of files, which every sealed folder has."""

    checks: list[CheckValues]


KEPT = tuple(Build.__annotations__)

_build, _manifest = TypeAdapter(Build), TypeAdapter(Manifest)


def is_build(values: Any) -> bool:
    """Whether the values are those of a build."""
    return _fits(_build, values)


def is_manifest(values: Any) -> bool:
    """Whether the values are those of a manifest."""
    return _fits(_manifest, values)


def _fits(kind: TypeAdapter[Any], values: Any) -> bool:
    try:
        kind.validate_python(values)
    except ValidationError:
        return False
    return True
