"""Measure what other tools rebuild: the same toy chain, the same changes, one table.

    python benchmarks/staleness/compare.py [--work FOLDER] [--tools dvc,snakemake,...] [--scenarios 1,2,...]

Each tool gets a virtual environment under FOLDER (default: a temporary one, removed at the end) by pip, current release
from PyPI. Nothing else uses the network, telemetry is off. Prints a Markdown table and writes results.json beside this
file; with --tools or --scenarios, the other results there are kept. See README.md for how the cells are to be read.
"""

import argparse
import datetime
import json
import platform
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

import scenarios
from tool import Tool
from tool_dagster import DagsterAll, DagsterObserved, DagsterStale
from tool_dvc import Dvc
from tool_snakemake import Snakemake, SnakemakeCache
from tool_zenml import Zenml

TOOLS: tuple[type[Tool], ...] = (Dvc, Snakemake, SnakemakeCache, DagsterAll, DagsterStale, DagsterObserved, Zenml)
RESULTS = Path(__file__).parent / "results.json"
VERSIONS = "import importlib.metadata as m, json, sys; print(json.dumps({n: m.version(n) for n in sys.argv[1:]}))"


def environment(tool: type[Tool], work: Path) -> Path:
    """A virtual environment with the tool; one that is there already is used as it is."""
    folder = work / ("venv-" + tool.packages[0].partition("[")[0])
    if not (folder / "installed").exists():
        venv.create(folder, with_pip=True, clear=True)
        pip = [folder / "bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *tool.packages], check=True)
        (folder / "installed").touch()
    return folder


def versions(tool: type[Tool], folder: Path) -> dict[str, str]:
    """The versions installed, from the environment itself."""
    command = [folder / "bin/python", "-c", VERSIONS, *tool.versions]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def say(line: str) -> None:
    """Progress, beside the table."""
    print(line, file=sys.stderr, flush=True)


def table(results: dict[str, dict]) -> str:
    """One row a scenario, one column a tool."""
    tools = [tool for tool in TOOLS if tool.name in results]
    lines = ["| | scenario | " + " | ".join(tool.title for tool in tools) + " |", "|---|---|" + "---|" * len(tools)]
    for number, (title, _) in scenarios.SCENARIOS.items():
        cells = [results[tool.name]["scenarios"].get(str(number), {}).get("verdict", "not run") for tool in tools]
        lines.append(f"| {number} | {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def compare(work: Path, names: list[str], numbers: list[int], output: Path) -> None:
    """Install, measure, write after every tool, print the table."""
    found = json.loads(output.read_text()) if output.exists() else {}
    for tool in [tool for tool in TOOLS if tool.name in names]:
        folder = environment(tool, work)
        home = work / f"home-{tool.name}"
        home.mkdir(parents=True, exist_ok=True)
        kept = found.get(tool.name, {}).get("scenarios", {})
        found[tool.name] = {
            "versions": versions(tool, folder),
            "python": platform.python_version(),
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "scenarios": scenarios.run(tool(folder, home), numbers, kept, say),
        }
        ordered = {tool.name: found[tool.name] for tool in TOOLS if tool.name in found}
        output.write_text(json.dumps(ordered, indent=1) + "\n")
    print(table(found))


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    every = ",".join(tool.name for tool in TOOLS)
    parser.add_argument("--work", type=Path, help="where environments and projects go, and stay")
    parser.add_argument("--tools", default=every, help=every)
    parser.add_argument("--scenarios", default=",".join(map(str, scenarios.SCENARIOS)))
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    names, numbers = given.tools.split(","), [int(number) for number in given.scenarios.split(",")]
    unknown = set(names) - {tool.name for tool in TOOLS}
    if unknown:
        parser.error(f"unknown tools: {', '.join(sorted(unknown))}; known: {every}")
    if given.work:
        given.work.mkdir(parents=True, exist_ok=True)
        compare(given.work.resolve(), names, numbers, given.results)
    else:
        with tempfile.TemporaryDirectory() as work:
            compare(Path(work).resolve(), names, numbers, given.results)


if __name__ == "__main__":
    main()
