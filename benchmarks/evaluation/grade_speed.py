"""How many answers are graded a second: the cases of the tests, again and again, by two workers.

    python benchmarks/evaluation/grade_speed.py [--rows 12000] [--workers 2]

Prints the rate with the start of the workers and without, and the slowest answers.
"""

import argparse
import json
import time
from pathlib import Path

from ernie_pipeline.grading.grade import grade

CASES = Path(__file__).parents[2] / "ernie_pipeline_tests" / "evaluation" / "answers" / "cases.jsonl"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=12_000)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    cases = [json.loads(line) for line in CASES.read_text(encoding="utf-8").splitlines()]
    rows = [cases[number % len(cases)] for number in range(options.rows)]
    for name, some in (
        ("start of the workers, one answer", rows[:1]),
        ("first sight", rows[: len(cases)]),
        ("all", rows),
    ):
        start = time.perf_counter()
        answers, references = [row["answer"] for row in some], [row["reference"] for row in some]
        grades = grade(answers, references, timeout_s=5, workers=options.workers)
        seconds = time.perf_counter() - start
        print(f"{name}: {len(some)} answers in {seconds:.2f} s, {len(some) / seconds:,.0f} a second")
    slowest = sorted(zip((each.seconds for each in grades), answers, strict=True), reverse=True)[:5]
    for seconds, answer in slowest:
        print(f"  {1000 * seconds:.1f} ms  {answer[:80]}")


if __name__ == "__main__":
    main()
