"""The code location opens fast. What may import what is import-linter's: see pyproject.toml."""

import json
import subprocess
import sys

HEAVY = {"torch", "transformers", "datasets", "mlflow", "unsloth", "peft", "trl", "bitsandbytes", "reasoning_gym"}
HEAVY |= {"ray", "kubernetes", "dagster_k8s", "modal", "obstore"}

IMPORT = """
import json, sys, time
start = time.process_time()
import {module}
print(json.dumps([time.process_time() - start, sorted(sys.modules)]))
"""


def fresh_import(module: str) -> tuple[float, set[str]]:
    """CPU seconds of an import in a new process, and the modules that are then loaded."""
    command = [sys.executable, "-W", "ignore", "-c", IMPORT.format(module=module)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds, modules = json.loads(done.stdout)
    return seconds, set(modules)


def test_opening_the_code_location_loads_no_heavy_library() -> None:
    _, loaded = fresh_import("ernie_pipeline.definitions")
    assert "dagster" in loaded
    assert loaded & HEAVY == set()


def test_an_export_looks_for_its_model_before_it_loads_any() -> None:
    assert fresh_import("ernie_pipeline.registry.export.export")[1] & HEAVY == set()


LONGER = 1.75
"""It takes 1.4 to 1.5 times as long on a quiet machine."""


def test_opening_the_code_location_takes_little_longer_than_dagster_itself() -> None:
    """Of the quickest imports of each; up to five, as something else may have slowed one of them down."""
    ours: list[float] = []
    dagsters: list[float] = []
    while len(ours) < 5 and (not ours or min(ours) > LONGER * min(dagsters)):
        ours.append(fresh_import("ernie_pipeline.definitions")[0])
        dagsters.append(fresh_import("dagster")[0])
    assert min(ours) <= LONGER * min(dagsters)


def test_the_file_that_mlflow_runs_as_it_saves_a_model_loads_neither_torch_nor_transformers() -> None:
    """The step that registers a model does so; both are needed where it is loaded, in another process."""
    _, loaded = fresh_import("ernie_pipeline.registry.served_model")
    assert "mlflow" in loaded
    assert loaded & {"torch", "transformers", "peft"} == set()
