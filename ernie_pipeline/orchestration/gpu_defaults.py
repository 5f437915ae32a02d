"""The resource `gpu` as a file sets it, ERNIE_PIPELINE_GPU: for every way in, schedule and sensor too.

What is set in the launchpad or by `--config` stands over it, field by field. (Dagster 1.13 takes a resource's own
values only where nothing at all is set at launch; so the file's become the defaults of the resource's fields.)
"""

from pathlib import Path
from typing import Any

import dagster as dg
import yaml
from pydantic import BaseModel, Field, ValidationError, create_model

from ernie_pipeline.orchestration.gpu import GpuResource
from ernie_pipeline.utils.errors import PipelineError, first_line

VARIABLE = "ERNIE_PIPELINE_GPU"


def gpu_resource(file: str | None) -> Any:
    """The resource, with what the file says as its defaults. The file is a run config, as `dagster ... --config` takes.

    Raises `PipelineError` for a file that is none, or that says something else than the resource `gpu`'s config.
    """
    if not file:
        return GpuResource.configure_at_launch()
    values = _values(file)
    try:
        GpuResource(**values)
        with_defaults: type[GpuResource] = _with_defaults(GpuResource, values, "gpu")
    except (ValidationError, dg.DagsterInvalidDefinitionError, dg.DagsterInvalidConfigError, _NoFieldError) as error:
        raise PipelineError(f"{VARIABLE} = {file!r}: {_what_is_wrong(error)}; correct the file") from error
    return with_defaults.configure_at_launch()


def _values(file: str) -> dict[str, Any]:
    try:
        config = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise PipelineError(
            f"{VARIABLE} = {file!r} cannot be read as YAML ({first_line(error)}); correct it, or unset it"
        ) from error
    for name in ("resources", "gpu", "config"):
        if not isinstance(config, dict) or set(config) != {name}:
            raise PipelineError(
                f"{VARIABLE} = {file!r} sets something else than the resource gpu; write resources:, gpu: and config:, "
                "each indented below the one before, and the values below it"
            )
        config = config[name]
    if not isinstance(config, dict):
        raise PipelineError(f"{VARIABLE} = {file!r} has no values below config; write some, such as launcher: local")
    return config


class _NoFieldError(Exception):
    """A name that is none of the fields; the text says so."""


def _with_defaults(model: type[Any], values: dict[str, Any], where: str) -> Any:
    """A class like `model`, which is at `where`, with other defaults, those of the models within it too."""
    fields: dict[str, Any] = {}
    for name, value in values.items():
        info = model.model_fields.get(name)
        if info is None:
            raise _NoFieldError(f"{where}.{name} is none of the fields there ({', '.join(model.model_fields)})")
        kind = info.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            kind = _with_defaults(kind, value, f"{where}.{name}")
            value = kind()
        fields[name] = (kind, Field(value, description=info.description))
    return create_model(model.__name__, __base__=model, __module__=model.__module__, **fields)


def _what_is_wrong(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return first_line(error)
    first = error.errors()[0]
    return f"{'.'.join(map(str, ('gpu', *first['loc'])))}: {first['msg']}"
