"""The app that is deployed: it imports without an account, and asks Modal for what the environment says."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ernie_pipeline.launch.modal.engine import FUNCTION
from ernie_pipeline_tests.launch.modal.app import APP, ROOT

ASKED = """
import json, sys
import modal
from modal import _image
from modal._image import _Image

asked, stages, options = {}, [], []
real = modal.App.function

def function(self, **keywords):
    asked.update(keywords)
    return real(self, **keywords)

modal.App.function = function
args = _Image._from_args

def from_args(*arguments, **keywords):
    stages.append(keywords.get("dockerfile_function"))
    return args(*arguments, **keywords)

_Image._from_args = staticmethod(from_args)
sys.path.insert(0, sys.argv[1])
import modal_app

made = [stage("2025.06") for stage in stages if stage]
print(json.dumps({
    "app": modal_app.app.name,
    "gpu": asked["gpu"], "cpu": asked["cpu"], "memory": asked["memory"], "timeout": asked["timeout"],
    "retries": asked["retries"], "env": asked["env"], "single": asked["single_use_containers"],
    "volumes": {path: repr(volume) for path, volume in asked["volumes"].items()},
    "secrets": [repr(secret) for secret in asked["secrets"]],
    "commands": [command for stage in made for command in stage.commands],
    "files": {name: str(file) for stage in made for name, file in stage.context_files.items()},
    "mounts": repr(modal_app.run._spec_.mounts),
    "functions": [*modal_app.app._local_state.functions],
}))
"""


def asked(tmp_path: Path, **settings: str) -> Any:
    """What the app asks for, deployed with these settings; without a token, and outside of the checkout."""
    environment = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    environment |= {f"ERNIE_PIPELINE_MODAL_{name}": value for name, value in settings.items()}
    command = [sys.executable, "-c", ASKED, str(APP.parent)]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def test_the_function_is_defined_with_what_is_set_and_the_image_is_made_of_the_lock_file(tmp_path: Path) -> None:
    values = asked(
        tmp_path, APP="ours", GPU="H200:2", CPUS="8", MEMORY_GIB="64", TIMEOUT_S="7200", RETRIES="2",
        SECRETS="bucket,hub", VOLUME="bases", EXTRAS="gpu",
    )  # fmt: skip
    assert (values["app"], values["gpu"], values["cpu"], values["memory"]) == ("ours", "H200:2", 8, 65536)
    assert (values["timeout"], values["retries"], values["single"]) == (7200, 2, True)
    assert values["env"]["ERNIE_PIPELINE_MODAL_TIMEOUT_S"] == "7200", "the body ends a job a minute before"
    assert "bases" in values["volumes"]["/ernie"]
    assert [name for name in ("bucket", "hub") if any(name in secret for secret in values["secrets"])] == [
        "bucket",
        "hub",
    ]
    [sync] = [command for command in values["commands"] if "uv sync" in command]
    assert {"--frozen", "--extra=modal", "--extra=gpu"} <= {*sync.split()}
    assert Path(values["files"]["/.uv.lock"]) == ROOT / "uv.lock"
    assert Path(values["files"]["/.pyproject.toml"]) == ROOT / "pyproject.toml"
    [uv] = [command for command in values["commands"] if "ghcr.io/astral-sh/uv" in command]
    assert "uv:latest" not in uv
    assert values["functions"] == [FUNCTION]


def test_without_settings_it_is_one_a100_for_a_day_at_most(tmp_path: Path) -> None:
    values = asked(tmp_path)
    assert (values["app"], values["gpu"], values["timeout"], values["retries"]) == ("ernie-pipeline", "A100", 86400, 0)


@pytest.mark.parametrize(("name", "value"), [("TIMEOUT_S", "90000"), ("RETRIES", "many"), ("CPUS", "0")])
def test_a_setting_that_cannot_be_is_one_sentence(tmp_path: Path, name: str, value: str) -> None:
    environment = {"HOME": str(tmp_path), f"ERNIE_PIPELINE_MODAL_{name}": value}
    done = subprocess.run([sys.executable, str(APP)], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith(f"ERNIE_PIPELINE_MODAL_{name} = {value!r} is no number from")
    assert done.stderr.count("\n") == 1
