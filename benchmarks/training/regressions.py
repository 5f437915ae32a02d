"""What has become slower or larger: the newest rows of results.jsonl beside the best ones before them.

    python benchmarks/training/regressions.py                   # exit status 3 where a figure is 5 % worse
    python benchmarks/training/regressions.py --add run.log     # rows of the log's RESULT lines first

A row of the file is one measured run: `card`, `layers` of the checkpoint and `run` say what was measured, `commit` and
`date` of what and when, then the figures. Rows of the same card, layers and run are compared: of the last row's commit
the best of each figure with the best of all other commits, a loss with the last one before. Seconds from the start of
the process are compared among runs that compiled kernels, or among those that did not. A row with `meant` says why it
is worse: those before it are compared no more.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from ernie_pipeline.utils.text_table import aligned

RESULTS = Path(__file__).parent / "results.jsonl"
WORSE = 0.05
"""The share from which on a figure counts as worse, or a loss as another one."""
SAYS = ("card", "layers", "run", "commit", "date")
FIGURES: dict[str, Literal["more", "less", "same"]] = {
    "tokens_per_s": "more",
    "peak_gpu_gib": "less",
    "seconds": "less",
    "saved_after_s": "less",
    "process_s": "less",
    "loss": "same",
    "loss_objective": "same",
    "quantized_s": "less",
    "quantizing_peak_gib": "less",
    "load_s": "less",
}
"""Of whole.py and cold_start.py, and what is better."""
FROM_START = ("saved_after_s", "process_s")
HEADER = ["", "now", "at", "before", "at", "change", ""]
KEPT = (*SAYS, *FIGURES, "kernels_compiled")

Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--add", type=Path, nargs="+", metavar="LOG", default=[])
    parser.add_argument("--results", type=Path, default=RESULTS)
    asked = parser.parse_args()
    rows = read_rows(asked.results)
    added = [row for log in asked.add for row in rows_of_log(log) if row not in rows]
    if added:
        with asked.results.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in added)
    if asked.add:
        print(f"{len(added)} rows added to {asked.results}\n")
    tables = compared([*rows, *added])
    for title, lines in tables.items():
        print(f"{title}\n{aligned([HEADER, *lines])}\n")
    if not tables:
        print("nothing to compare: no run was measured at two commits")
    worse = sum(line[-1] != "" for lines in tables.values() for line in lines)
    if worse:
        print(f"{worse} figures are {WORSE:.0%} worse or more, or other ones")
        sys.exit(3)


def read_rows(file: Path) -> list[Row]:
    """The rows of a results file, none where there is none yet. Ends the process with a sentence for a broken one."""
    if not file.exists():
        return []
    numbered = enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
    return [_row(line, f"{file}:{number}") for number, line in numbered if line.strip()]


def rows_of_log(log: Path) -> Iterator[Row]:
    """A row for each RESULT line that says what was run; those of other benchmarks do not."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        sys.exit(f"{log} cannot be read ({error.strerror})")
    found = [(number, line.removeprefix("RESULT ")) for number, line in enumerate(lines, 1) if line[:7] == "RESULT "]
    named = [(number, text) for number, text in found if '"run"' in text]
    if not named:
        sys.exit(f"{log} has no RESULT line of whole.py or cold_start.py that names its run")
    for number, text in named:
        row = _row(text, f"{log}:{number}")
        if row["commit"] == "unknown":
            sys.exit(f"{log}:{number}: its commit is unknown: write it there, or measure with --commit")
        yield {name: row[name] for name in KEPT if name in row}


def _row(text: str, where: str) -> Row:
    try:
        row = json.loads(text)
    except ValueError as error:
        sys.exit(f"{where} is not JSON ({error})")
    if not isinstance(row, dict) or (lacks := [name for name in SAYS if name not in row]):
        sys.exit(f"{where} does not say {', '.join(lacks) if isinstance(row, dict) else 'what was measured'}")
    return row


def compared(rows: list[Row]) -> dict[str, list[list[str]]]:
    """By what was run where: a line of cells for each figure that can be compared, the last one empty or WORSE."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(f"{row['run']}, {row['layers']} layers, {row['card']}", []).append(row)
    tables = {title: [line for figure in FIGURES if (line := _line(figure, group))] for title, group in groups.items()}
    return {title: lines for title, lines in tables.items() if lines}


def _line(figure: str, group: list[Row]) -> list[str] | None:
    """The cells of one figure; None where there is nothing to compare it with."""
    first = max((number for number, row in enumerate(group) if row.get("meant")), default=0)
    rows = [row for row in group[first:] if row.get(figure) is not None]
    if figure in FROM_START and rows:
        rows = [row for row in rows if "kernels_compiled" in row]
        rows = [row for row in rows if bool(row["kernels_compiled"]) == bool(rows[-1]["kernels_compiled"])]
    commit = group[-1]["commit"]
    now, before = ([row for row in rows if (row["commit"] == commit) == own] for own in (True, False))
    if not now or not before:
        return None
    better = FIGURES[figure]
    best = {"more": max, "less": min, "same": lambda those, key: those[-1]}[better]
    here, there = (best(those, key=lambda row: row[figure]) for those in (now, before))
    change = here[figure] / there[figure] - 1
    is_worse = {"more": -change, "less": change, "same": abs(change)}[better] >= WORSE
    values = [f"{here[figure]:,}", commit, f"{there[figure]:,}", there["commit"], f"{change:+.1%}"]
    return [f"  {figure}", *values, ("OTHER" if better == "same" else "WORSE") if is_worse else ""]


if __name__ == "__main__":
    main()
