"""The data stage beside a plain `datasets` version of it, alternating, each run in a fresh process.

    python benchmarks/data/measure.py                      # 112,867 rows, 20,000 benchmark questions, 3 repetitions
    python benchmarks/data/measure.py --scale 1000000      # how ours grows, as well
    python benchmarks/data/measure.py --source ROWS.jsonl  # real rows

Prints a line of JSON for each run, then Markdown tables. See README.md for what is counted.
"""

import argparse
import dataclasses
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil
from job import Job
from make_rows import QUESTIONS, write_benchmark, write_rows

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
DEMO_TOKENIZER = ROOT / "ernie_pipeline" / "demo" / "base"
SCALES = (112_867, 250_000, 500_000, 1_000_000)
WATCH_S = 0.2

Variant = tuple[str, str, dict[str, Any]]
"""A label, the version ("ours" or "datasets"), and what its job has beyond source, out and tokenizer."""


def variants(benchmark: Path | None, processes: list[int], only: list[str]) -> list[Variant]:
    """What is compared."""
    plain: list[Variant] = [
        (
            f"datasets, {'with' if count else 'without'} counting tokens, num_proc={number}",
            "datasets",
            {"count_tokens": count, "processes": number},
        )
        for count in (False, True)
        for number in processes
    ]
    ours: list[Variant] = [("ours, without near duplicates and decontamination", "ours", {})]
    if benchmark:
        ours.append(("ours, whole stage", "ours", {"benchmark": benchmark}))
    return [variant for variant in plain + ours if variant[1] in only]


def run_once(variant: Variant, job: Job) -> dict[str, Any]:
    """One run: its own figures, the launcher's clock, and the peak of the whole process tree."""
    label, version, more = variant
    with tempfile.TemporaryDirectory(dir=job.out) as out:
        given = dataclasses.asdict(dataclasses.replace(job, out=Path(out), **more))
        # stdin and stdout are this run's own; caches of `datasets` are in `out`, so nothing is reused
        environment = os.environ | {"HF_HOME": f"{out}/hf", "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
        command = [sys.executable, str(HERE / "one_run.py"), version, json.dumps(given, default=str)]
        start = time.perf_counter()
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
        watcher = TreeWatcher(child.pid)
        printed, errors = child.communicate()
        whole = time.perf_counter() - start
        watcher.stop()
    if child.returncode:
        raise SystemExit(f"{label} failed:\n{errors}")
    found = json.loads(printed.strip().splitlines()[-1])
    peak = max(found["own_peak_mb"], round(watcher.peak_mb))
    return {"variant": label, **found, "seconds_with_start": round(whole, 3), "peak_mb": peak}


class TreeWatcher:
    """The most memory of a process and its descendants together, sampled; shared pages are counted once (PSS)."""

    def __init__(self, pid: int):
        self.peak_mb = 0.0
        self._process = psutil.Process(pid)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the sampling."""
        self._stopped.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stopped.wait(WATCH_S):
            try:
                children = self._process.children(recursive=True)
            except psutil.Error:
                return
            if children:  # alone, the process knows its own peak exactly
                self.peak_mb = max(self.peak_mb, sum(map(_pss_mb, [self._process, *children])))


def _pss_mb(process: psutil.Process) -> float:
    try:
        return float(process.memory_full_info().pss) / 1e6
    except psutil.Error:  # ended meanwhile
        return 0.0


def measure(chosen: list[Variant], job: Job, repetitions: int) -> list[dict[str, Any]]:
    """Every variant once in a repetition, in a rotating order, so that a slow minute does not fall on one alone."""
    runs = []
    for repetition in range(repetitions):
        shift = repetition % len(chosen)
        for variant in chosen[shift:] + chosen[:shift]:
            runs.append({"repetition": repetition, **run_once(variant, job)})
            print(json.dumps(runs[-1]), flush=True)
    return runs


def comparison(runs: list[dict[str, Any]], rows: int) -> str:
    """The table of medians (in brackets: lowest to highest), with what `datasets` takes divided by it."""
    labels = list(dict.fromkeys(run["variant"] for run in runs))
    seconds = {label: [run["seconds"] for run in runs if run["variant"] == label] for label in labels}
    medians = {label: statistics.median(values) for label, values in seconds.items()}
    best = {
        count: min((m for label, m in medians.items() if label.startswith(f"datasets, {count} ")), default=None)
        for count in ("without", "with")
    }
    lines = [
        f"{rows:,} rows:",
        "",
        "| | seconds | with start and imports | peak MB | after imports | kept "
        "| `datasets` / this | counting tokens / this |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for label in labels:
        own = [run for run in runs if run["variant"] == label]
        ratios = [f"{value / medians[label]:.2f}" if value else "" for value in (best["without"], best["with"])]
        lines.append(
            f"| {label} | {medians[label]:.1f} ({min(seconds[label]):.1f} to {max(seconds[label]):.1f}) "
            f"| {statistics.median(run['seconds_with_start'] for run in own):.1f} "
            f"| {max(run['peak_mb'] for run in own)} | {max(run['imports_mb'] for run in own)} "
            f"| {', '.join(f'{kept:,}' for kept in sorted({run['kept'] for run in own}))} | {ratios[0]} | {ratios[1]} |"
        )
    return "\n".join(lines)


def growth(found: list[tuple[int, dict[str, Any]]]) -> str:
    """The table of the sizes, each beside the first: 1.00 is exactly linear time, and memory that does not grow."""
    first_rows, first = found[0]
    lines = [
        "| rows | seconds | µs a row | a row's time / first's | peak MB | / first's | kept |",
        "|---|---|---|---|---|---|---|",
    ]
    for rows, run in found:
        each, first_each = run["seconds"] / rows, first["seconds"] / first_rows
        lines.append(
            f"| {rows:,} | {run['seconds']:.1f} | {each * 1e6:.0f} | {each / first_each:.2f} "
            f"| {run['peak_mb']} | {run['peak_mb'] / first['peak_mb']:.2f} | {run['kept']:,} |"
        )
    return "\n".join(lines)


def main() -> None:
    given = _arguments()
    work = Path(tempfile.mkdtemp(prefix="data-benchmark-", dir=given.work))
    try:
        _measure_in(work, given)
    finally:
        shutil.rmtree(work)


def _measure_in(work: Path, given: argparse.Namespace) -> None:
    source, benchmark = given.source, None
    if given.questions and not given.no_whole:
        benchmark = work / "benchmark.jsonl"
        write_benchmark(benchmark, given.questions, given.seed)
    if source is None:
        source = work / "rows.jsonl"
        write_rows(source, given.rows, given.seed, given.questions)
    job = Job(source=source.absolute(), out=work, tokenizer=given.tokenizer.absolute(), skip=tuple(given.skip))
    with source.open("rb") as file:
        rows = sum(1 for _ in file)
    runs = measure(variants(benchmark, given.num_proc, given.only), job, given.repetitions)
    print("\n" + comparison(runs, rows) + "\n")
    if given.scale:
        print(_grow(work, job, benchmark, given))


def _grow(work: Path, job: Job, benchmark: Path | None, given: argparse.Namespace) -> str:
    last = variants(benchmark, [], ["ours"])[-1]
    found = []
    for rows in [rows for rows in SCALES if rows < given.scale] + [given.scale]:
        source = work / "scale.jsonl"
        write_rows(source, rows, given.seed, given.questions)
        found.append((rows, run_once(last, dataclasses.replace(job, source=source))))
        print(json.dumps({"rows": rows, **found[-1][1]}), flush=True)
    return f"\n{last[0]}:\n\n" + growth(found)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=112_867)
    parser.add_argument("--source", type=Path, help="a real JSONL file instead of generated rows")
    parser.add_argument("--questions", type=int, default=QUESTIONS, help="generated benchmark questions")
    parser.add_argument("--scale", type=int, default=0, help="also measure how ours grows up to this many rows")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--num-proc", type=int, nargs="+", default=[1, 2], help="for the datasets version")
    parser.add_argument("--only", nargs="+", choices=["ours", "datasets"], default=["ours", "datasets"])
    parser.add_argument("--no-whole", action="store_true", help="without the run of our whole stage")
    parser.add_argument("--skip", nargs="*", default=[], help="filters of the recipe to leave out, in both versions")
    parser.add_argument("--tokenizer", type=Path, default=DEMO_TOKENIZER, help="a checkpoint folder, used by both")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, help="where the temporary folder is made (default: the system's)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
