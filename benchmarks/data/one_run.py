"""One measured run in a process of its own: `python one_run.py {ours,datasets} JOB.json` prints one line of JSON."""

import importlib
import json
import sys
import time
from pathlib import Path

from job import Job

MODULES = {"ours": "our_stage", "datasets": "datasets_version"}
PATHS = ("source", "out", "tokenizer", "benchmark")


def peak_mb() -> float:
    """The most memory that this process has held since it was started, in MB.

    VmHWM belongs to the program in memory, so unlike `ru_maxrss` it holds nothing of the process that started this one.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    kib = next(line.split()[1] for line in lines if line.startswith("VmHWM:"))
    return int(kib) * 1024 / 1e6


def main() -> None:
    given = json.loads(sys.argv[2])
    job = Job(**{k: Path(v) if k in PATHS and v else tuple(v) if k == "skip" else v for k, v in given.items()})
    module = importlib.import_module(MODULES[sys.argv[1]])
    tokenizer = module.prepare(job.tokenizer)
    baseline = peak_mb()
    start = time.perf_counter()
    kept = module.run(job, tokenizer)
    seconds = time.perf_counter() - start
    print(
        json.dumps(
            {"seconds": round(seconds, 3), "imports_mb": round(baseline), "own_peak_mb": round(peak_mb()), "kept": kept}
        )
    )


if __name__ == "__main__":
    main()
