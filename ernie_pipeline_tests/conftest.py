"""What several rooms' tests share: a tiny split to train on, a recipe of seconds, and a quiet environment."""

import gc
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from ernie_pipeline.utils.lighter_imports import bitsandbytes_without_compiler

# before any test imports torch: a second spinning thread costs more than it gives on a busy machine
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ["HF_HUB_OFFLINE"] = "1"
# the many processes that tests start would each compile the whole package, its copies in temporary folders included
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
bitsandbytes_without_compiler()
# what torch, transformers and mlflow define as tests import them is walked by every collection: a quarter of an import
gc.set_threshold(100_000, 50, 50)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # as a shell starts what runs in its background; the tests of interrupts, and the processes that they start, hear it
    signal.signal(signal.SIGINT, signal.default_int_handler)

TOGETHER = tuple(
    f"ernie_pipeline_tests/{folder}/" for folder in ("scenarios/staleness", "registry", "launch/ray", "store/shared")
)
"""Folders whose files share what takes long to build: a home with everything in it; a registered model; a cluster; a
bucket's server."""

SLOW = (
    "scenarios/",
    "registry/test_register.py",
    "registry/test_served_model.py",
    "registry/test_batcher.py",
    "registry/test_agent_server.py",
    "registry/export/test_command.py",
    "training/test_resume.py",
    "solutions/test_killed.py",
    "golden/",
    "launch/test_local.py",
    "launch/test_torchrun.py",
    "orchestration/test_metering.py",
    "orchestration/test_reload.py",
    "staleness/test_publication.py::test_a_run_is_ended",
    "store/shared/test_lease.py",
    "store/shared/test_store.py",
)
"""What the marker `slow` is given to: whole runs of the pipeline, models that are registered and loaded back, and
processes that are killed or wait for one another."""

LONG = (
    "cli/test_read_only_bucket.py",
    "deploy/test_mlflow_server.py",
    "deploy/test_services.py",
    "launch/modal/test_jobs.py",
    "launch/modal/test_work.py",
    "launch/ray/",
    "orchestration/ui/",
    "recipe/test_home.py",
    "registry/export/test_export.py",
    "registry/publish/test_publish.py",
    "registry/test_first_opening.py",
    "scenarios/shared/",
    "scenarios/test_budget.py",
    "scenarios/test_demo_chain.py",
    "scenarios/test_docs_recipe.py",
    "scenarios/test_hub_format_chain.py",
    "scenarios/test_notebooks.py",
    "scenarios/test_own_rows.py",
    "scenarios/test_publishing.py",
    "scenarios/test_refresh_ended.py",
    "scenarios/test_solutions_chain.py",
    "scenarios/test_suites.py",
    "staleness/test_in_a_bucket.py",
    "store/test_mutations.py",
    "tests/test_quiet.py",
    "training/grpo/test_whole.py",
)
"""What the marker `long` is given to, besides `slow`: a Ray cluster, services on PostgreSQL with a queue of runs,
machines in network namespaces, homes of other users and buckets that may only be read, stores altered at random, every
form of export loaded back, further whole chains. They take nearly as long again as all the others."""

FIRST = (
    "launch/ray/",
    "launch/modal/test_jobs.py",
    "deploy/test_services.py",
    "tests/scenarios/",
    "tests/deploy/",
    "tests/registry/",
    "tests/store/shared/",
    "tests/training/",
    "tests/launch/",
    "tests/cli/test_run.py",
    "tests/orchestration/test_reload.py",
    "tests/orchestration/test_metering.py",
)
"""What takes minutes a file or folder, then what takes half a minute a file; then come the many others."""

SHARED = Path(__file__).parents[2] / "shared"


@pytest.hookimpl(tryfirst=True)  # before pytest looks at the markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is slow, and begin with what takes long, so that all processes have work to the end; see `FIRST`."""
    for item in items:
        if any(place in item.nodeid for place in (*SLOW, *LONG)):
            item.add_marker("slow")
        if any(place in item.nodeid for place in LONG):
            item.add_marker("long")
    items.sort(key=lambda item: next((n for n, place in enumerate(FIRST) if place in item.nodeid), len(FIRST)))


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """One process more than there are cores: many tests wait for processes that they have started."""
    return (os.cpu_count() or 1) + 1


def pytest_collection_finish() -> None:
    """What is imported by now stays, so a collection of garbage, which accelerate asks for, need not walk all of it."""
    gc.collect()
    gc.freeze()


class ByFile(LoadScopeScheduling):  # type: ignore[misc]
    """A file's tests stay in one process, for their fixtures; so do those of each folder in `TOGETHER`."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return next((folder for folder in TOGETHER if file.startswith(folder)), file)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFile:
    return ByFile(config, log)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real rows beside the project; tests that need it skip where it is not."""
    if not (SHARED / "data").is_dir():
        pytest.skip("the real rows (../shared/data) are not beside this checkout")
    return SHARED / "data"


@pytest.fixture(scope="session")
def tiny_split(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """See `write_tiny_split`."""
    from ernie_pipeline_tests.tiny_split import write_tiny_split

    return write_tiny_split(tmp_path_factory.mktemp("split"))


@pytest.fixture(scope="session")
def short_base(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A `BaseCheckpoint` of the demo model's first two layers, a dense one and one of experts.

    For what does not depend on the model's depth.
    """
    from ernie_pipeline_tests.first_layers import write_first_layers

    return write_first_layers(tmp_path_factory.mktemp("short") / "base", 2)


@pytest.fixture(scope="session")
def short_spec(short_base: Any) -> Any:
    """A `ModelSpec` of those two layers in fp32, of backend `peft`, with a small adapter to come."""
    from ernie_pipeline.models.spec import ModelSpec
    from ernie_pipeline.recipe.sections import Lora, Quantization

    quantization = Quantization(compute_dtype="float32", double=False)
    return ModelSpec(backend="peft", base=short_base, quantization=quantization, lora=Lora(rank=4, alpha=8))


@pytest.fixture(scope="session")
def quantized_short(short_base: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same two layers as backend `grouped` keeps them, see `models/grouped/demo.py`."""
    from ernie_pipeline_tests.models.grouped.demo import FLAT, quantize_demo

    folder = tmp_path_factory.mktemp("quantized")
    quantize_demo(folder, FLAT, Path(short_base.checkpoint))
    return folder


@pytest.fixture
def make_job(tiny_split: Path, tmp_path: Path) -> Callable[..., Any]:
    """A `TrainingJob` on the tiny split, of the demo model by default: six steps of eight rows in fp32.

    `training`, `lora` and `quantization` are changes of these sections, the rest are fields of the job or its spec.
    """
    from ernie_pipeline.demo import BASE
    from ernie_pipeline.models.spec import BaseCheckpoint, ModelSpec
    from ernie_pipeline.recipe.sections import Lora, Quantization, Training
    from ernie_pipeline.training.job import TrainingJob

    usual = {"backend": "peft", "samples_per_step": 8, "max_steps": 6, "learning_rate": 3e-3, "eval_every": 3}
    usual |= {"optimizer": "adamw_torch", "log_every": 1}

    def make(
        name: str = "out",
        training: dict[str, Any] | None = None,
        lora: dict[str, Any] | None = None,
        quantization: dict[str, Any] | None = None,
        base: Any = None,
        backend: str = "peft",
        **fields: Any,
    ) -> TrainingJob:
        out = tmp_path / name
        out.mkdir()
        spec = ModelSpec(
            backend=backend,
            base=base or BaseCheckpoint(name="demo", checkpoint=str(BASE)),
            quantization=Quantization(**{"compute_dtype": "float32", "double": False, **(quantization or {})}),
            lora=Lora(**{"rank": 4, "alpha": 8, **(lora or {})}),
        )
        settings = Training(**{**usual, "backend": backend, **(training or {})})
        return TrainingJob(spec=spec, training=settings, split=tiny_split, out=out, **fields)

    return make


@pytest.fixture
def make_evaluation(make_job: Callable[..., Any]) -> Callable[..., Any]:
    """An `EvaluationJob` on the tiny split, of the demo model by default."""
    from ernie_pipeline.evaluation.job import EvaluationJob
    from ernie_pipeline.recipe.sections import Evaluation

    def make(name: str = "out", evaluation: dict[str, Any] | None = None, **changes: Any) -> EvaluationJob:
        job = make_job(name, **changes)
        settings = Evaluation(**{"max_new_tokens": 8, **(evaluation or {})})
        return EvaluationJob(spec=job.spec, evaluation=settings, split=job.split, out=job.out)

    return make
