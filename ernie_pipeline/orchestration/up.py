"""All that is looked at, on one home: Dagster's pages with its daemon, and MLflow's."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from ernie_pipeline.recipe.settings import Settings
from ernie_pipeline.registry.mlflow_pages import page
from ernie_pipeline.registry.moved_home import renew_places
from ernie_pipeline.utils.errors import PipelineError, first_line

if TYPE_CHECKING:
    from dagster import DagsterInstance

HOST, DAGSTER_PORT, MLFLOW_PORT = "127.0.0.1", 3000, 5000
OWN = "dagster"
"""The folder of a home that is DAGSTER_HOME where the environment names no other."""
OWN_CONFIG = Path(__file__).with_name("dagster.yaml")
"""What its dagster.yaml is made from."""
MLFLOW_UI = "ERNIE_PIPELINE_MLFLOW_UI"
START_PAGES = {"MLflow": f"/{page('')}"}
"""Where to begin, if not at the root."""
START_S = 180.0
"""By then both listen, on a machine that is at work."""
END_S = 30.0
"""For each process that is asked to end."""
CODE_SERVER_S = 10.0
"""By then one has noticed that nobody asks it any more."""


def up(
    settings: Settings,
    port: int = DAGSTER_PORT,
    mlflow_port: int = MLFLOW_PORT,
    tell: Callable[[str], None] = print,
) -> int:
    """Start Dagster's web server and daemon, and MLflow's pages where its database is a file, on 127.0.0.1; stay until
    interrupted. Returns 0.

    What the environment lacks is set for them: DAGSTER_HOME is `dagster_home`, so that the pages show what `run`,
    `refresh` and `dagster asset materialize` with the same DAGSTER_HOME have built. Raises `PipelineError` where a port
    is taken, and where one of them does not start, or ends by itself.
    """
    settings.check_places()
    with_mlflow = not settings.tracking_uri.startswith(("http:", "https:"))
    if with_mlflow and port == mlflow_port:
        raise PipelineError(f"port {port} cannot be both Dagster's and MLflow's; give one of them another")
    settings.make_home()
    home = dagster_home(settings)
    for words in warnings_of_home(settings):
        tell(f"warning: {words}")
    for name, number in (("Dagster", port), *([("MLflow", mlflow_port)] if with_mlflow else [])):
        _check_free(name, number)
    environment = {**os.environ, "DAGSTER_HOME": str(home), "ERNIE_PIPELINE_HOME": _home(settings)}
    if with_mlflow:
        environment.setdefault(MLFLOW_UI, f"http://{HOST}:{mlflow_port}")
    _lead_to_mlflow(environment.get(MLFLOW_UI) or settings.mlflow_ui, settings, home, tell)
    commands = _commands(settings, port, mlflow_port if with_mlflow else None)
    with _interrupted() as asked:
        started: dict[str, subprocess.Popen[bytes]] = {}
        try:
            for name, command in commands.items():
                started[name] = _start(command, environment, home / f"{name.lower()}.log")
            return _stay(started, {"Dagster": port, "MLflow": mlflow_port}, home, asked, tell)
        finally:
            _end(started.values())


def _commands(settings: Settings, port: int, mlflow_port: int | None) -> dict[str, Sequence[str]]:
    dagster = ("dagster", "dev", "-m", "ernie_pipeline.definitions", "-h", HOST, "-p", str(port))
    if mlflow_port is None:
        return {"Dagster": dagster}
    place = ("--backend-store-uri", settings.tracking_uri, "--host", HOST, "--port", str(mlflow_port))
    return {"Dagster": dagster, "MLflow": ("mlflow", "ui", "--workers", "1", *place)}


def _lead_to_mlflow(address: str, settings: Settings, home: Path, tell: Callable[[str], None]) -> None:
    """Let pages that are there link to MLflow at the address, and say how those that others write will do."""
    from ernie_pipeline.orchestration.renewed_links import renew_mlflow_links

    # before Dagster's own processes are there, which make its storage where there is none
    with open_instance(home) as instance:
        renew_mlflow_links(instance, address)
    if address != settings.mlflow_ui:
        tell(f"What is built in another terminal links to MLflow here where {MLFLOW_UI}={address} is set.")


def dagster_home(settings: Settings) -> Path:
    """`named_dagster_home`, or the folder `dagster` in the home, which is made with the project's dagster.yaml.

    Raises as that does.
    """
    if told := named_dagster_home():
        return told
    folder = settings.home / OWN
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "dagster.yaml").exists():
        shutil.copyfile(OWN_CONFIG, folder / "dagster.yaml")
    return folder


def named_dagster_home() -> Path | None:
    """DAGSTER_HOME, where the environment names one. Raises `PipelineError` for one that Dagster would not take."""
    told = os.environ.get("DAGSTER_HOME")
    if told and not (Path(told).is_absolute() and Path(told).is_dir()):
        raise PipelineError(
            f"DAGSTER_HOME = {told!r} is no folder that is there, by its whole path; make it with mkdir -p, or unset it"
        )
    return Path(told) if told else None


def open_instance(home: Path) -> "DagsterInstance":
    """Dagster's instance of this DAGSTER_HOME. Raises `PipelineError` where its dagster.yaml is not one."""
    from dagster import DagsterInstance

    with _in_a_sentence(home):
        return DagsterInstance.from_config(str(home))


def check_dagster_yaml(home: Path) -> None:
    """The same `PipelineError` of its dagster.yaml, without opening anything."""
    from dagster._core.instance.config import dagster_instance_config

    with _in_a_sentence(home):
        dagster_instance_config(str(home))


@contextmanager
def _in_a_sentence(home: Path) -> Iterator[None]:
    """What Dagster says of a dagster.yaml that it does not take, without its schema of forty lines."""
    import yaml
    from dagster._check import CheckError
    from dagster._core.errors import DagsterInvalidConfigError

    try:
        yield
    except (DagsterInvalidConfigError, CheckError, ImportError, yaml.YAMLError) as error:
        said = " ".join(str(error).partition("Error 1: ")[2].partition(" Expected:")[0].split())
        said = said or first_line(error).removeprefix("Failure condition: ").rstrip(".")
        said = "it is not YAML" if isinstance(error, yaml.YAMLError) else said
        instead = "unset DAGSTER_HOME" if os.environ.get("DAGSTER_HOME") else "remove it, and it is made anew"
        raise PipelineError(
            f"{home / 'dagster.yaml'} is not one that Dagster takes ({said.rstrip('.')}); correct it, or {instead}"
        ) from None


def warnings_of_home(settings: Settings) -> list[str]:
    """What is told before something is built in this home; MLflow's database of one that was moved is renewed."""
    return list(filter(None, [renew_places(settings.tracking_uri), of_another_home(settings)]))


def of_another_home(settings: Settings) -> str:
    """A sentence where DAGSTER_HOME is the folder `dagster` of another home than this one, "" elsewhere: the runs of
    both stand on its pages then, where an asset's last one is that of whichever came last."""
    told = Path(os.environ.get("DAGSTER_HOME") or "/").resolve()
    home = told.parent
    if told.name != OWN or home == settings.home.resolve() or not ((home / "store").is_dir() or home.name == ".ernie"):
        return ""
    return (
        f"DAGSTER_HOME belongs to the home {home}, and this is {settings.address or settings.home}: Dagster's pages "
        "show the runs of both as one; unset it, or export the one of this home"
    )


def _home(settings: Settings) -> str:
    """As an absolute path: these processes may be started elsewhere."""
    return settings.address or str(settings.home)


def _check_free(name: str, port: int) -> None:
    if listens(port):
        raise PipelineError(f"port {port} of {HOST}, for {name}, is taken; end what listens there, or give another")


def _start(command: Sequence[str], environment: dict[str, str], log: Path) -> "subprocess.Popen[bytes]":
    """In a group of its own: Ctrl-C in a terminal is for this process, which ends them in their order."""
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-m", *command],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            process_group=0,
        )


def _stay(
    started: dict[str, "subprocess.Popen[bytes]"],
    ports: dict[str, int],
    home: Path,
    asked: list[int],
    tell: Callable[[str], None],
) -> int:
    """Tell each address once it answers; return when an end is asked for, or one of them has ended."""
    waiting, deadline = dict(started), time.monotonic() + START_S
    while not asked:
        for name in [name for name in waiting if listens(ports[name])]:
            tell(f"{name}: http://{HOST}:{ports[name]}{START_PAGES.get(name, '')}")
            del waiting[name]
            if not waiting:
                tell("Ctrl-C ends them; a run that is under way goes on where it was, the next time.")
        ended = [name for name, process in started.items() if process.poll() is not None]
        if ended or (waiting and time.monotonic() > deadline):
            name = [*ended, *waiting][0]
            what = "ended by itself" if ended else "does not answer"
            raise PipelineError(f"{name} {what}; its log is {home / f'{name.lower()}.log'}")
        time.sleep(0.2)
    return 0


def listens(port: int) -> bool:
    """Whether something of this machine listens there, on 127.0.0.1."""
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


@contextmanager
def _interrupted() -> Iterator[list[int]]:
    """The signals to end that have come meanwhile, which end nothing by themselves."""
    asked: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, lambda got, _: asked.append(got)) for number in numbers}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(processes: Iterable["subprocess.Popen[bytes]"]) -> None:
    """Interrupt all and wait for each, and for what it has started: Dagster's code server ends a while after it, and a
    run that is under way has to be told. What does not end in time is killed."""
    running = [process for process in processes if process.poll() is None]
    family = [each for process in running for each in _descendants(process.pid)]
    for process in running:
        process.send_signal(signal.SIGINT)
    for process in running:
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    _, left = psutil.wait_procs(family, timeout=CODE_SERVER_S)
    for each in left:
        with suppress(psutil.Error):
            each.terminate()
    _, left = psutil.wait_procs(left, timeout=END_S)
    for each in left:
        with suppress(psutil.Error):
            each.kill()


def _descendants(pid: int) -> list[psutil.Process]:
    try:
        found: list[psutil.Process] = psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return []
    return found
