"""The code location opens fast, and the rooms know only those below them."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import ernie_pipeline

PACKAGE = Path(ernie_pipeline.__file__).parent
HEAVY = {"torch", "transformers", "datasets", "mlflow", "unsloth", "peft", "trl", "bitsandbytes", "reasoning_gym"}
KNOW_DAGSTER = {"definitions", "orchestration", "launch"}
APART = {"data", "training", "evaluation", "registry"}

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


def test_opening_the_code_location_takes_little_longer_than_dagster_itself() -> None:
    """Of the quickest imports of each; up to five, as something else may have slowed one of them down."""
    ours: list[float] = []
    dagsters: list[float] = []
    while len(ours) < 5 and (not ours or min(ours) > 1.5 * min(dagsters)):
        ours.append(fresh_import("ernie_pipeline.definitions")[0])
        dagsters.append(fresh_import("dagster")[0])
    assert min(ours) <= 1.5 * min(dagsters)


def imports(file: Path) -> set[str]:
    """Every absolute import of a file, inside functions too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file}: the rooms import each other by their full names"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def imports_of_rooms() -> dict[str, set[str]]:
    """What each room of the package, a folder or a file, imports."""
    found: dict[str, set[str]] = {}
    for file in PACKAGE.rglob("*.py"):
        room = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
        found.setdefault(room, set()).update(imports(file))
    return found


def knows(imported: set[str], package: str) -> set[str]:
    return {name for name in imported if f"{name}.".startswith(f"{package}.")}


def test_few_rooms_know_dagster() -> None:
    assert {room for room, names in imports_of_rooms().items() if knows(names, "dagster")} <= KNOW_DAGSTER


@pytest.mark.parametrize("room", sorted(APART))
def test_what_passes_between_these_rooms_is_files(room: str) -> None:
    imported = imports_of_rooms()[room]
    assert {name for other in APART - {room} for name in knows(imported, f"ernie_pipeline.{other}")} == set()


def test_no_room_below_imports_the_assets() -> None:
    above = {"definitions", "orchestration", "staleness"}
    for room, names in imports_of_rooms().items():
        if room not in above and room != "__main__":
            assert not {n for other in above for n in knows(names, f"ernie_pipeline.{other}")}, room
