"""A failed blocking check stops not only the run that it is in."""

import re
from pathlib import Path

from ernie_pipeline_tests.scenarios.chain import BELOW_SPLIT, QUICK_RECIPE, rows, write_rows
from ernie_pipeline_tests.scenarios.staleness.workplace import Workplace, copy_package

UNGUARDED = """
[near_duplicates]
enabled = false

[decontamination]
enabled = false
"""


def test_after_a_failed_check_no_later_run_goes_on_below_it(tmp_path: Path) -> None:
    """All that keeps a question from coming twice is off, and each does: some have a row in both parts."""
    place = Workplace(tmp_path / "home", tmp_path / "recipe.toml", copy_package(tmp_path / "code"))
    place.recipe.write_text(QUICK_RECIPE + UNGUARDED)
    filters, group = "data/filter/filters.py", "GROUP_FILTERS: tuple[Filter, ...] = (\n    conflicting_answers,\n"
    place.edit_code(filters, f"{group}    exact_duplicate,\n", group)
    once = rows(range(25))
    spaced = [line.replace(" + ", "  +  ") for line in once]
    settings = {"ERNIE_PIPELINE_SOURCE": write_rows(tmp_path / "rows.jsonl", [*once, *spaced])}

    run = place.materialize("raw_nemotron,math_split,qlora_adapter", **settings)
    assert (run.status, run.built) == (1, ["raw_nemotron", "math_split"])
    planned = place.plan(**settings)
    assert planned.status == 3
    failed = planned.todo["math_split"]
    assert re.fullmatch(r"failed: check no_overlap failed: [1-9]\d* questions stand in both parts", failed)
    assert planned.todo == {
        "math_split": failed,
        **dict.fromkeys(("verified_solutions", *BELOW_SPLIT), "missing: not built yet"),
    }

    later = place.materialize("qlora_adapter", **settings)
    assert (later.status, later.materialized) == (1, [])
    assert later.failure == f"math_split is not fit for use: {failed.removeprefix('failed: ')}"

    place.edit_code(filters, group, f"{group}    exact_duplicate,\n")
    assert place.plan(**settings).todo["math_split"] == "stale: code ernie_pipeline.data.filter.filters changed"
