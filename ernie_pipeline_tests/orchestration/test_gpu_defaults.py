import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from ernie_pipeline.orchestration.gpu import GpuResource
from ernie_pipeline.orchestration.gpu_defaults import gpu_resource
from ernie_pipeline.utils.errors import PipelineError

ON_RAY = """
resources:
  gpu:
    config:
      launcher: ray
      ray: {address: "http://cluster:8265", gpus: 0}
      execution: {profile: 40gb}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "gpu.yaml"


def resource_of_a_run(file: str | None, config: dict[str, Any]) -> GpuResource:
    """As a step gets it, of a run that is launched with `config`."""
    found: list[GpuResource] = []

    @dg.asset
    def asset(gpu: GpuResource) -> None:
        found.append(gpu)

    job = dg.Definitions([asset], resources={"gpu": gpu_resource(file)}).resolve_implicit_global_asset_job_def()
    assert job.execute_in_process(run_config={"resources": {"gpu": {"config": config}}} if config else {}).success
    return found[0]


def test_the_file_holds_where_nothing_is_set_at_launch(file: Path) -> None:
    file.write_text(ON_RAY)
    gpu = resource_of_a_run(str(file), {})
    assert (gpu.launcher, gpu.ray.address, gpu.ray.gpus, gpu.execution.profile) == (
        "ray",
        "http://cluster:8265",
        0,
        "40gb",
    )
    assert (gpu.ray.workers, gpu.gpus) == (1, 1)


def test_what_is_set_at_launch_stands_over_it_field_by_field(file: Path) -> None:
    file.write_text(ON_RAY)
    gpu = resource_of_a_run(str(file), {"gpus": 2, "ray": {"workers": 3}})
    assert (gpu.launcher, gpu.ray.address, gpu.ray.workers, gpu.gpus) == ("ray", "http://cluster:8265", 3, 2)
    assert resource_of_a_run(str(file), {"launcher": "local"}).launcher == "local"


def test_without_a_file_it_is_as_it_is_written() -> None:
    assert resource_of_a_run(None, {}).launcher == "local"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("resources: {gpu: {config: {launcher: slurm}}}", r"gpu\.launcher: Input should be 'local'"),
        ("resources: {gpu: {config: {ray: {workers: 0}}}}", r"gpu\.ray\.workers: .* greater than or equal to 1"),
        ("resources: {gpu: {config: {luncher: ray}}}", r"gpu\.luncher is none of the fields there \(launcher, "),
        (
            "resources: {gpu: {config: {ray: {adress: x}}}}",
            r"gpu\.ray\.adress is none of the fields there \(cpus, gpus, ",
        ),
        ("resources: {gpu: {config: {ray: 5}}}", r"gpu\.ray"),
        ("resources: {gpu: {config: null}}", "has no values below config"),
        ("launcher: ray", "sets something else than the resource gpu"),
        ("ops: {}\nresources: {gpu: {config: {gpus: 2}}}", "sets something else than the resource gpu"),
        ("a: [", "cannot be read as YAML"),
    ],
)
def test_a_file_that_says_nothing_that_can_be_is_one_sentence(file: Path, text: str, sentence: str) -> None:
    file.write_text(text)
    with pytest.raises(PipelineError, match=sentence) as error:
        gpu_resource(str(file))
    assert str(error.value).startswith(f"ERNIE_PIPELINE_GPU = {str(file)!r}")
    assert len(str(error.value).splitlines()) == 1


def test_a_file_that_is_not_there_is_one_sentence(file: Path) -> None:
    with pytest.raises(PipelineError, match=r"ERNIE_PIPELINE_GPU = .* cannot be read as YAML \(.*No such file"):
        gpu_resource(str(file))


@pytest.mark.parametrize(
    ("command", "variable", "value", "sentence"),
    [
        (
            ["definitions", "validate", "-m"],
            "ERNIE_PIPELINE_GPU",
            "{file}",
            "ERNIE_PIPELINE_GPU = '{file}': gpu.launcher: Input should be 'local'",
        ),
        (
            ["asset", "materialize", "--select", "raw_nemotron", "-m"],
            "ERNIE_PIPELINE_SENSOR_SECONDS",
            "soon",
            "ERNIE_PIPELINE_SENSOR_SECONDS = 'soon' is not a whole number",
        ),
    ],
    ids=["validate", "materialize"],
)
def test_dagster_s_commands_say_what_is_wrong_with_a_setting_first(
    file: Path, tmp_path: Path, command: list[str], variable: str, value: str, sentence: str
) -> None:
    """`materialize` nothing else; `validate` adds where it was raised, and no other error that led to it."""
    file.write_text("resources: {gpu: {config: {launcher: slurm}}}")
    given = {variable: value.format(file=file), "ERNIE_PIPELINE_HOME": str(tmp_path / "home")}
    run = subprocess.run(
        [sys.executable, "-m", "dagster", *command, "ernie_pipeline.definitions"],
        env={**os.environ, **given},
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert run.returncode == 1
    before, found, after = (run.stdout + run.stderr).partition(sentence.format(file=file))
    assert found
    assert "Traceback" not in before + after
    assert "Stack Trace" not in before
    assert "caused by" not in after
    if command[0] == "asset":
        assert before.endswith("Error: ")
        assert len(after.splitlines()) == 1
