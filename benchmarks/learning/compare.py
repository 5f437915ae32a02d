"""What the demo's base learns from bare answers, from its own verified solutions, and by GRPO: in one command.

    python benchmarks/learning/compare.py HOME [--seeds 5] [--updates 200] [--jobs 2]

HOME keeps every run, so the same command goes on where it was stopped. See README.md.
"""

import argparse
import os
import shutil
import subprocess
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from families import longer_sums, prompt_of, two_step_equations
from report import report
from runs import METHODS, Runs, Settings

SOMETIMES = (0.2, 0.8)
"""Pass rates of the base between which a problem can be learnt: https://github.com/PrimeIntellect-ai/prime-rl asks of a
reinforcement learner that it solves such training problems after a while."""
SAMPLED = 8
LANES = (("grpo",), ("solutions", "solutions_2"), ("base", "answers"))


def main() -> None:
    options = _options()
    home = options.home.resolve()
    if not (home / "split" / "train.parquet").exists():
        _make_split(home)
    _write_families(home)
    settings = Settings(
        home, options.updates, options.samples, options.grpo_answers, options.grpo_rate, options.device == "cuda"
    )
    seeds = [Runs(settings, seed) for seed in range(1, options.seeds + 1)]
    with ThreadPoolExecutor(options.jobs) as pool:
        first = {runs: pool.submit(_first_round, runs) for runs in seeds}
        lanes = [
            pool.submit(_lane, runs, lane, first[runs])
            for lane in LANES  # the longest first
            for runs in seeds
            if {*lane} & {*options.methods, "base"}
        ]
        for done in lanes:
            done.result()
    print(report(seeds, ["base", *options.methods]))


def _first_round(runs: Runs) -> None:
    runs.sample(1)
    _write_sometimes(runs)


def _lane(runs: Runs, lane: Sequence[str], first: "Future[None]") -> None:
    """What one method needs of another, in order."""
    first.result()
    for method in lane:
        if method == "solutions_2":
            runs.sample(2)
        if method != "base":
            runs.train(method)
        runs.measure(method, _sets(runs))


def _sets(runs: Runs) -> dict[str, tuple[Path, int]]:
    home = runs.settings.home
    return {
        "held_out": (home / "split" / "eval.parquet", SAMPLED),
        "longer_sums": (home / "longer_sums.parquet", 0),
        "two_step_equations": (home / "two_step_equations.parquet", 0),
        "sometimes": (runs.folder / "sometimes.parquet", 0),
    }


def _write_sometimes(runs: Runs) -> None:
    """The training problems that the base solves some of the time, by its attempts in the first round."""
    problems = pq.read_table(runs.folder / "sampled_1" / "out" / "problems.parquet").to_pylist()
    wanted = {row["row_id"] for row in problems if SOMETIMES[0] <= row["pass_rate"] <= SOMETIMES[1]}
    rows = pq.read_table(runs.split / "train.parquet", columns=["row_id", "prompt_text", "answer"]).to_pylist()
    _write(runs.folder / "sometimes.parquet", [row for row in rows if row["row_id"] in wanted])


def _write_families(home: Path) -> None:
    for name, make in {"longer_sums": longer_sums, "two_step_equations": two_step_equations}.items():
        _write(
            home / f"{name}.parquet", [{"prompt_text": prompt_of(q), "answer": answer} for q, answer in make(200, 1)]
        )


def _write(file: Path, rows: list[dict[str, str]]) -> None:
    pq.write_table(pa.Table.from_pylist(rows), file)


def _make_split(home: Path) -> None:
    """The demo recipe's own, by its own assets."""
    environment = {**os.environ, "ERNIE_PIPELINE_HOME": str(home / "pipeline"), "ERNIE_PIPELINE_RECIPE": "demo"}
    line = ["dagster", "asset", "materialize", "--select", "+math_split", "-m", "ernie_pipeline.definitions"]
    subprocess.run(line, env=environment, check=True, capture_output=True)
    (made,) = (home / "pipeline" / "store" / "math_split").glob("*/train.parquet")
    (home / "split").mkdir(parents=True)
    for part in ("train", "eval"):
        shutil.copy(made.with_name(f"{part}.parquet"), home / "split")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("home", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--updates", type=int, default=200)
    parser.add_argument("--samples", type=int, default=8, help="attempts at each problem in a round of solutions")
    parser.add_argument("--grpo-answers", type=int, default=128, help="answers of a GRPO step, in groups of 8")
    parser.add_argument("--grpo-rate", type=float, default=1e-3, help="GRPO's learning rate")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    return parser.parse_args()


if __name__ == "__main__":
    main()
