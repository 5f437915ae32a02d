"""`verify`: whether a registered model is the one that was measured, step by step."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from ernie_pipeline.cli.output import ERROR, FRESH, STALE, AsJson
from ernie_pipeline.cli.verification import Depth, verify_version
from ernie_pipeline.recipe.settings import Settings
from ernie_pipeline.registry.model_uri import FORMS
from ernie_pipeline.registry.registered_names import check_registry
from ernie_pipeline.registry.tracking import connected
from ernie_pipeline.registry.verification.step import SHOWN, Report, Step
from ernie_pipeline.registry.verification.version import Version, find_version
from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline.utils.shares import as_shown

if TYPE_CHECKING:
    from mlflow import MlflowClient

STATUS = {"passed": FRESH, "differs": STALE, "unchecked": ERROR}

Model = Annotated[str | None, typer.Argument(metavar="MODEL", help=f"{FORMS}; else the recipe's champion")]
ModelToMove = Annotated[str, typer.Argument(metavar="MODEL", help=FORMS)]
Answers = Annotated[int, typer.Option(metavar="N", help="let it answer N held-out rows again")]
Files = Annotated[bool, typer.Option("--files", help="look at the files and their signature alone")]
Rebuild = Annotated[bool, typer.Option("--rebuild", help="build all of it once more, and compare")]


def verify(
    model: Model = None,
    answers: Answers = 0,
    files: Files = False,
    rebuild: Rebuild = False,
    as_json: AsJson = False,
) -> int:
    """Print a line a step, and what it comes to; exit status 0 all that was asked passed, 3 something differs, 1
    something could not be done."""
    depth, settings = depth_of(answers, files, rebuild), settings_with_registry()
    with connected(settings.tracking_uri) as client:
        version = find_version(client, model, settings.load_recipe().registry.model_name)
        report = verified(settings, client, version, depth, aloud=not as_json)
    print(json.dumps(report.as_json(), indent=1) if as_json else f"\n{report.sentence}")
    return STATUS[report.outcome]


def settings_with_registry() -> Settings:
    """The settings. Raises `PipelineError` where there is no registry to ask."""
    settings = Settings.from_environment()
    check_registry(settings)
    return settings


def depth_of(answers: int, files: bool, rebuild: bool) -> Depth:
    """What is to be looked at. Raises `PipelineError` for a number of answers that is none."""
    if answers < 0:
        raise PipelineError(f"--answers {answers} is no number of answers; give one above 0, or leave it out")
    if files and (answers or rebuild):
        raise PipelineError("--files is for files alone; leave it out, or --answers and --rebuild")
    return Depth(answers, rebuild, files)


def verified(settings: Settings, client: "MlflowClient", version: Version, depth: Depth, aloud: bool) -> Report:
    """The report on a version; `aloud`: each step is printed as soon as it is done."""
    steps: list[Step] = []
    for step in verify_version(settings, client, version, depth):
        steps.append(step)
        if aloud:
            print(line(step), flush=True)
    return Report(version.uri, steps)


def line(step: Step) -> str:
    """A step in a line."""
    return f"{SHOWN[step.outcome]:<12}{step.name:<27} {as_shown(step.said)}"
