"""A failed blocking check stops not only the run that it is in."""

from pathlib import Path

from ernie_pipeline_tests.scenarios.chain import QUICK_RECIPE, rows, write_rows
from ernie_pipeline_tests.scenarios.staleness.workplace import Workplace, copy_package

OVERLAP = "check no_overlap failed: 1 questions stand in both parts"


def test_after_a_failed_check_no_later_run_goes_on_below_it(tmp_path: Path) -> None:
    """The filter of duplicates is taken out, and each question comes twice: one of them has a row in both parts."""
    place = Workplace(tmp_path / "home", tmp_path / "recipe.toml", copy_package(tmp_path / "code"))
    place.recipe.write_text(QUICK_RECIPE)
    place.edit_code("data/filters.py", "    exact_duplicate,\n)", ")")
    settings = {"ERNIE_PIPELINE_SOURCE": write_rows(tmp_path / "rows.jsonl", rows([*range(25), *range(25)]))}

    run = place.materialize("raw_nemotron,math_split,qlora_adapter", **settings)
    assert (run.status, run.built) == (1, ["raw_nemotron", "math_split"])
    planned = place.plan(**settings)
    assert planned.status == 3
    assert planned.todo == {
        "math_split": f"failed: {OVERLAP}",
        **dict.fromkeys(("qlora_adapter", "base_evaluation"), "missing: not built yet"),
        **dict.fromkeys(("adapter_evaluation", "registered_model"), "missing: not built yet"),
    }

    later = place.materialize("qlora_adapter", **settings)
    assert (later.status, later.materialized) == (1, [])
    assert later.failure == f"math_split is not fit for use: {OVERLAP}"

    place.edit_code("data/filters.py", "    answer_length,\n)", "    answer_length,\n    exact_duplicate,\n)")
    assert place.plan(**settings).todo["math_split"] == "stale: code ernie_pipeline.data.filters changed"
