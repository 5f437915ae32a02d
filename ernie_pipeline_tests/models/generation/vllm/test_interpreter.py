"""Which vLLM there is, told before anything is fingerprinted, and in one sentence where there is none that works."""

import sys
from pathlib import Path

import pytest

from ernie_pipeline.models.generation.vllm.interpreter import PYTHON, environment, python_for, resolve_generator
from ernie_pipeline.utils.errors import PipelineError

OWN = 'or set execution.generator to "own"'


@pytest.fixture
def has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Python that says it has vLLM 0.23.0: of another environment there is but this question."""
    return says("0.23.0", tmp_path, monkeypatch)


def says(version: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    python = folder / f"python-{version}"
    python.write_text(f"#!/bin/sh\necho {version}\n")
    python.chmod(0o755)
    monkeypatch.setenv(PYTHON, str(python))
    return python


def refused(wanted: str) -> str:
    with pytest.raises(PipelineError) as told:
        resolve_generator(wanted)
    return str(told.value)


@pytest.mark.parametrize("wanted", [None, "own"])
def test_our_own_needs_nothing(wanted: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PYTHON, "/nowhere/python")
    assert resolve_generator(wanted) == "own"


def test_vllm_is_resolved_to_the_version_that_is_installed(has: Path) -> None:
    assert resolve_generator("vllm") == "vllm==0.23.0"
    assert python_for("vllm==0.23.0") == has


def test_a_version_by_name_is_taken_as_it_is_for_it_may_be_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PYTHON, "/nowhere/python")
    assert resolve_generator("vllm==0.50.1+cu130") == "vllm==0.50.1+cu130"


def test_where_the_work_runs_it_has_to_be_that_version(has: Path) -> None:
    with pytest.raises(PipelineError) as told:
        python_for("vllm==0.32.0")
    assert str(told.value) == (
        f'execution.generator is "vllm==0.32.0", and {has} has vLLM 0.23.0: install vllm==0.32.0 there, set {PYTHON} '
        f"to a Python that has it, {OWN}"
    )


@pytest.mark.parametrize("version", ["0.22.1", "0.33.0", "1.0.0", "dev"])
def test_a_version_that_is_not_known_to_work_is_refused_unless_it_is_named(
    version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = says(version, tmp_path, monkeypatch)
    assert refused("vllm") == (
        f"vLLM {version} of {python} is not known to work here (0.23 to 0.32 are): install one of these, set "
        f'execution.generator to "vllm=={version}" to try it all the same, {OWN}'
    )
    assert python_for(f"vllm=={version}") == python


@pytest.mark.parametrize("version", ["0.23.0", "0.32.0", "0.27.1+cpu"])
def test_the_versions_between_are_taken(version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    says(version, tmp_path, monkeypatch)
    assert resolve_generator("vllm") == f"vllm=={version}"


def test_a_python_without_vllm_is_told_with_how_to_get_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without = tmp_path / "python"
    without.symlink_to(sys.base_prefix + "/bin/python3")
    monkeypatch.setenv(PYTHON, str(without))
    assert refused("vllm") == (
        f'execution.generator = "vllm" needs vLLM, which {without} does not have: install it in an environment of its '
        f'own ("python -m venv ENV", "ENV/bin/pip install vllm==0.23.0") and set {PYTHON} to its Python, {OWN}'
    )


def test_what_is_no_python_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in (tmp_path, tmp_path / "none"):
        monkeypatch.setenv(PYTHON, str(place))
        assert refused("vllm") == (
            f"{PYTHON} = {str(place)!r} is no Python that can be run; set it to that of an environment with vLLM, such "
            f"as /path/to/env/bin/python, {OWN}"
        )


def test_nothing_of_this_environment_gets_into_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/ours")
    monkeypatch.setenv("VIRTUAL_ENV", "/ours")
    found = environment(Path("/theirs/bin/python"))
    assert not {"PYTHONPATH", "VIRTUAL_ENV"} & {*found}
    assert found["PATH"].startswith("/theirs/bin:")
