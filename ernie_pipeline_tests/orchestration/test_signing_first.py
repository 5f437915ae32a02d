"""A key that cannot sign what a run is to register is told before its first job, and not after its last one."""

import os
from pathlib import Path

import dagster as dg
import pytest

from ernie_pipeline.orchestration.gpu import GpuResource
from ernie_pipeline.orchestration.metering import run_folder
from ernie_pipeline.orchestration.report import pipeline_errors_as_failures
from ernie_pipeline_tests.launch.children import ChildJob, python_path, work_in
from ernie_pipeline_tests.launch.following import failure

CHILD = f"signing_first_{os.getpid()}"


@dg.asset
def trained(context: dg.AssetExecutionContext, gpu: GpuResource) -> dg.MaterializeResult:
    with pipeline_errors_as_failures():
        gpu.run(context, work_in(CHILD), ChildJob(out=Path(os.environ["ERNIE_PIPELINE_HOME"]).parent))
    return dg.MaterializeResult()


@dg.asset(deps=[trained])
def registered_model() -> None: ...


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / f"{CHILD}.py").write_text("def work(job, report): (job.out / 'worked').touch()")
    monkeypatch.setenv("PYTHONPATH", python_path(tmp_path))
    monkeypatch.setenv("ERNIE_PIPELINE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ERNIE_PIPELINE_SIGNING_KEY", str(tmp_path / "key.pem"))
    return tmp_path / "home"


def run(*assets: dg.AssetsDefinition) -> dg.ExecuteInProcessResult:
    return dg.materialize(assets, resources={"gpu": GpuResource()}, raise_on_error=False)


@pytest.mark.parametrize(
    ("content", "said"), [(None, "cannot be read (No such file or directory)"), ("no key", "cannot be used")]
)
def test_a_run_that_is_to_register_does_no_job_with_a_key_that_cannot_sign(
    home: Path, content: str | None, said: str
) -> None:
    if content:
        pytest.importorskip("model_signing", reason="needs ernie_pipeline[signing]")
        (home.parent / "key.pem").write_text(content)
    result = run(trained, registered_model)
    assert failure(result).startswith(f"ERNIE_PIPELINE_SIGNING_KEY = {str(home.parent / 'key.pem')!r} {said}")
    assert not (home.parent / "worked").exists()
    assert not run_folder(result.run_id).exists()


def test_one_that_registers_nothing_needs_no_key(home: Path) -> None:
    assert run(trained).success
    assert (home.parent / "worked").exists()
