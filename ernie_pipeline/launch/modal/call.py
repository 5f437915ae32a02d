"""A job on its way: its paths so that they mean something on both sides, and the code that it is for."""

import hashlib
import re
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

import ernie_pipeline
from ernie_pipeline.demo import BASE
from ernie_pipeline.launch.launcher import Launch
from ernie_pipeline.launch.work import Job, WorkKind
from ernie_pipeline.store.artifacts import FINGERPRINT
from ernie_pipeline.utils.errors import PipelineError

HOME, DEMO = "ernie-home:", "ernie-demo:"
"""In the place of the path of the home, or of its cache, and of the checkpoint in this package."""
STORE = "store"
PACKAGE = Path(ernie_pipeline.__file__).parent
NOT_THERE = ("cli", "orchestration", "staleness", "registry", "definitions.py", "__main__.py")
"""What no job runs."""
LIBRARIES = (
    "torch", "transformers", "peft", "bitsandbytes", "trl", "accelerate", "tokenizers", "math-verify", "unsloth",
    "unsloth_zoo",
)  # fmt: skip
"""Those that decide what comes out of a job."""


class Call(BaseModel):
    """What the function is told. `state`: the build's folder for unfinished work, below the home."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    work: str | WorkKind
    job: Job
    state: str
    number: int
    variables: dict[str, str]
    processes: int = 1
    stop_grace_s: float
    limit_s: float | None = None
    code: str
    libraries: dict[str, str]

    def paths(self) -> list[str]:
        """Those below the home that the job names."""
        return [text.removeprefix(HOME) for text in _texts(self.job) if text.startswith(HOME)]

    def artifacts(self) -> list[tuple[str, str]]:
        """Stage and fingerprint of each artifact that the job reads."""
        parts = [Path(path).parts for path in self.paths()]
        read = {(p[1], p[2]) for p in parts if len(p) > 2 and p[0] == STORE and p[1][0] != "."}
        return sorted(each for each in read if FINGERPRINT.fullmatch(each[1]))

    def other_library(self) -> str:
        """The first library that decides what comes out, and is here in another version than there; "" if none is."""
        here = library_versions()
        return next((name for name, there in self.libraries.items() if here.get(name, "") != there), "")


def call_for(launch: Launch, home: Path, number: int, variables: Mapping[str, str]) -> Call:
    """The job of a launch, for a machine that has nothing of this one. `number`: of the attempt.

    Raises `PipelineError` for a path that can be had here only.
    """
    assert launch.state is not None
    job = launch.job.model_dump(mode="json")
    job["out"] = f"{HOME}{STORE}/.out"  # the job's own sealed folder takes its place
    given = launch.job.model_dump(exclude={"out"})
    marked = {name: _marked(value, job[name], home, name) for name, value in given.items()}
    return Call(
        work=launch.work,
        job={**job, **marked},
        state=launch.state.relative_to(home).as_posix(),
        number=number,
        variables={name: _text(value, home) for name, value in variables.items()},
        processes=launch.processes,
        stop_grace_s=launch.stop_grace_s,
        limit_s=launch.time_limit_s,
        code=code_version(),
        libraries=library_versions(),
    )


def placed(value: Any, places: Mapping[str, Path]) -> Any:
    """Values of JSON's types with this machine's paths. `places`: where what is below each path of the home is, the
    longest first, and "" the home itself."""
    if isinstance(value, dict):
        return {name: placed(each, places) for name, each in value.items()}
    if isinstance(value, list):
        return [placed(each, places) for each in value]
    if isinstance(value, str) and value.startswith(HOME):
        path = value.removeprefix(HOME)
        below = next(each for each in places if not each or path == each or path.startswith(f"{each}/"))
        return str(places[below] / path.removeprefix(below).lstrip("/"))
    return str(BASE) if value == DEMO else value


@cache
def code_version() -> str:
    """A hash of the package's files that a job may run."""
    files = [file for file in sorted(PACKAGE.rglob("*.py")) if file.relative_to(PACKAGE).parts[0] not in NOT_THERE]
    found = hashlib.sha256()
    for file in files:
        found.update(f"{file.relative_to(PACKAGE).as_posix()}\0{file.stat().st_size}\n".encode() + file.read_bytes())
    return found.hexdigest()[:16]


@cache
def _library_version(name: str) -> str:
    try:
        return re.sub(r"\+.*", "", version(name))  # one build for CUDA, another one without
    except PackageNotFoundError:
        return ""


def library_versions() -> dict[str, str]:
    """Of those that are installed here."""
    return {name: found for name in LIBRARIES if (found := _library_version(name))}


def _marked(value: Any, as_json: Any, home: Path, name: str) -> Any:
    """The value `as_json`, whose paths are known by their types in `value`."""
    if isinstance(value, dict):
        return {key: _marked(each, as_json[str(key)], home, str(key)) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_marked(each, other, home, name) for each, other in zip(value, as_json, strict=True)]
    if isinstance(value, Path):
        return _path(value, home, name)
    if name == "checkpoint" and isinstance(value, str) and Path(value).is_absolute():  # of a base model
        if value != str(BASE):
            raise PipelineError(
                f"base_model.name = {value!r} is a folder of this machine, which a container of Modal cannot see; set "
                'it to a hub id, or gpu.launcher to "local"'
            )
        return DEMO
    return as_json


def _path(path: Path, home: Path, name: str) -> str:
    if not path.is_relative_to(home):
        raise PipelineError(
            f"{name} = {str(path)!r} is not in the home, and a container of Modal sees nothing else of this machine; "
            'set gpu.launcher to "local"'
        )
    return f"{HOME}{path.relative_to(home).as_posix()}"


def _text(value: str, home: Path) -> str:
    return _path(Path(value), home, "") if value.startswith(f"{home}/") else value


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _texts(each)
