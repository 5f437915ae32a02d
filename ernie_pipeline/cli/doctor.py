"""`doctor`: what is here to work with, and what to do about what is not; exit status 1 where nothing can work."""

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from tempfile import TemporaryFile
from typing import Literal

from ernie_pipeline.cli.output import ERROR, FRESH, AsJson, print_answer
from ernie_pipeline.orchestration.up import check_dagster_yaml, listens, named_dagster_home, of_another_home
from ernie_pipeline.recipe.settings import Settings
from ernie_pipeline.utils.address import public_uri
from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline.utils.text_table import aligned, human_size

OLDEST = (3, 11)
MEMORY, DISK = 3 * 2**30, 3 * 2**30
"""Bytes that the recipe demo needs."""
REAL_GPU = 40 * 2**30
"""Bytes of GPU memory in which the recipe `reference` was measured to train."""
PORTS = {3000: "dagster dev", 5000: "mlflow ui", 5001: "ernie serve"}
TOKENS = {
    "HF_TOKEN": "data sets and models of the hub that ask for an account, and publishing",
    "MLFLOW_TRACKING_TOKEN": "an MLflow server that asks for one",
    "MLFLOW_TRACKING_PASSWORD": "the same, with MLFLOW_TRACKING_USERNAME",
    "AWS_ACCESS_KEY_ID": "a home in a bucket",
}
TOLD = ("dagster", "torch", "transformers", "peft", "bitsandbytes", "datasets", "mlflow")
"""Libraries whose versions are told where they are as they should be; of the others only what is wrong."""


@dataclass(frozen=True)
class Finding:
    """`bad`: nothing can work like that; `note`: something cannot. `cure`: what to do, "" where there is nothing."""

    name: str
    state: Literal["ok", "note", "bad"]
    found: str
    cure: str = ""


def doctor(as_json: AsJson = False) -> int:
    """Look at Python, GPU, libraries, memory, disk, home, tokens and ports. No token's value is shown."""
    findings = list(_findings())
    rows = [("", "", "found", "what to do"), *((f.state, f.name, f.found, f.cure) for f in findings)]
    bad = [finding.name for finding in findings if finding.state == "bad"]
    said = f"Nothing can work before this is mended: {', '.join(bad)}." if bad else "The pipeline can work here."
    values = {"works": not bad, "findings": [asdict(finding) for finding in findings]}
    print_answer(as_json, values, f"{aligned(rows)}\n\n{said}")
    return ERROR if bad else FRESH


def _findings() -> Iterator[Finding]:
    yield _python()
    yield from _libraries()
    yield from _gpus()
    yield _memory()
    yield from _places()
    yield _dagster_home()
    yield from _tokens()
    yield from map(_port, PORTS)


def _python() -> Finding:
    here = f"{platform.python_version()} ({sys.executable})"
    if sys.version_info[:2] < OLDEST:
        return Finding("Python", "bad", here, f"install Python {'.'.join(map(str, OLDEST))} or later")
    return Finding("Python", "ok", here)


def _libraries() -> Iterator[Finding]:
    """What the package requires, beside what is installed."""
    from packaging.requirements import Requirement

    try:
        wanted = [Requirement(each) for each in requires("ernie_pipeline") or ()]
    except PackageNotFoundError:
        yield Finding("libraries", "note", "this package is not installed", 'pip install -e ".[dev]" in its folder')
        return
    for each in wanted:
        if each.marker and not each.marker.evaluate({"extra": ""}):
            continue
        pip = f"pip install '{each.name}{each.specifier}'"
        try:
            here = version(each.name)
        except PackageNotFoundError:
            yield Finding(each.name, "bad", "not installed", pip)
            continue
        if not each.specifier.contains(here, prereleases=True):
            yield Finding(each.name, "note", f"{here}, where {each.specifier} is asked for", pip)
        elif each.name in TOLD:
            yield Finding(each.name, "ok", here)


def _gpus() -> Iterator[Finding]:
    asked = "name,driver_version,memory.total,memory.used"
    command = ["nvidia-smi", f"--query-gpu={asked}", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        said = ""
    found = [[part.strip() for part in line.split(",")] for line in said.splitlines() if line.count(",") == 3]
    for name, driver, total, used in found:
        size = float(total) * 2**20 if total.isdecimal() else 0.0
        cure = "" if size >= REAL_GPU else "for ERNIE-4.5-21B in 4 bits as the recipe `reference` has it, 40 GiB"
        told = f"{name}, {human_size(int(size))}, {used} MiB in use, driver {driver}"
        yield Finding("GPU", "note" if cure else "ok", told, cure)
    if found and "+cpu" in version("torch"):
        yield Finding("torch", "note", f"{version('torch')} is a build for CPUs", "install the build for CUDA")
    if not found:
        cure = "`demo` runs on the CPU; the recipes `reference` and `best` need an NVIDIA GPU with its driver"
        yield Finding("GPU", "note", "none that nvidia-smi shows", cure)


def _memory() -> Finding:
    import psutil

    memory = psutil.virtual_memory()
    told = f"{human_size(memory.available)} of {human_size(memory.total)} free; {os.cpu_count()} CPU cores"
    enough = memory.available >= MEMORY
    return Finding(
        "memory", "ok" if enough else "note", told, "" if enough else "the recipe demo takes 3 GiB: free some"
    )


def _places() -> Iterator[Finding]:
    """The home, its disk, the recipe and the registry's address."""
    try:
        settings = Settings.from_environment()
        settings.check_places()
    except PipelineError as error:
        yield Finding("home", "bad", "cannot be used", str(error))
        return
    here = next(place for place in (settings.home, *settings.home.parents) if place.exists())
    free = shutil.disk_usage(here).free
    told, cure = str(settings.address or settings.home), ""
    if writable := _is_writable(here):
        told += f", {human_size(free)} free on its disk"
    else:
        cure = f"{here} cannot be written: set --home to a folder that can"
    if writable and free < DISK:
        cure = "the recipe demo and its registry take up to 3 GB: make room, or set --home"
    yield Finding("home", "bad" if not writable else "note" if cure else "ok", told, cure)
    yield Finding("MLflow", "ok", public_uri(settings.tracking_uri))
    try:
        recipe = settings.load_recipe()
    except PipelineError as error:
        yield Finding("recipe", "bad", settings.recipe, str(error))
        return
    yield Finding("recipe", "ok", f"{settings.recipe}: {recipe.registry.model_name}, of {recipe.base_model.name}")


def _is_writable(folder: Path) -> bool:
    """Whether a file can be made there: its rights do not tell, as of /proc for root."""
    try:
        with TemporaryFile(dir=folder):  # without a name, where the disk has such: nothing is made by looking
            return True
    except OSError:
        return False


def _dagster_home() -> Finding:
    told = os.environ.get("DAGSTER_HOME")
    name = "DAGSTER_HOME"
    if not told:
        cure = "`ernie run` keeps it in the home; Dagster's own commands forget their runs: export DAGSTER_HOME"
        return Finding(name, "note", "not set", cure)
    try:
        named_dagster_home()
    except PipelineError:
        return Finding(name, "note", told, "it must be a folder that is there, by its whole path: mkdir -p it")
    if not Path(told, "dagster.yaml").is_file():
        return Finding(name, "note", told, "it has no dagster.yaml: cp deploy/dagster.yaml there (one job at a time)")
    try:
        check_dagster_yaml(Path(told))
    except PipelineError as error:
        return Finding(name, "bad", told, str(error))
    try:
        words = of_another_home(Settings.from_environment())
    except PipelineError:  # the home's own line tells
        words = ""
    return Finding(name, "note" if words else "ok", told, words)


def _tokens() -> Iterator[Finding]:
    """Whether they are there, and no more."""
    for name, what in TOKENS.items():
        there = bool(os.environ.get(name))
        if name == "HF_TOKEN" and not there:
            there = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser().joinpath("token").is_file()
        yield Finding(name, "ok", "set" if there else "not set", "" if there else f"needed for {what}")


def _port(port: int) -> Finding:
    taken = listens(port)
    cure = f"`{PORTS[port]}` asks for it: give it another with --port, or end who has it" if taken else ""
    return Finding(f"port {port}", "note" if taken else "ok", "in use" if taken else "free", cure)
