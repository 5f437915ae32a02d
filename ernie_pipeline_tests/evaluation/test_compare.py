import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ernie_pipeline.evaluation.compare import compare_evaluations
from ernie_pipeline.utils.errors import PipelineError


def evaluation(folder: Path, by: str = "peft", /, **correct: bool) -> Path:
    """An artifact with a grade for each row id."""
    folder.mkdir()
    table = pa.table({"row_id": list(correct), "correct": list(correct.values())})
    pq.write_table(table, folder / "predictions.parquet")
    (folder / "model.json").write_text(json.dumps({"backend": by}))
    return folder


def test_answers_are_compared_row_by_row_in_whatever_order_they_stand(tmp_path: Path) -> None:
    before = evaluation(tmp_path / "before", a=True, b=False, c=False, d=False)
    after = evaluation(tmp_path / "after", d=True, c=True, b=False, a=False)
    compared = compare_evaluations(before, after)
    assert compared["gain"] == 0.25
    assert compared == compare_evaluations(before, evaluation(tmp_path / "sorted", a=False, b=False, c=True, d=True))


@pytest.mark.parametrize("rows", [{"a": True}, {"a": True, "c": True}, {"a": True, "b": True, "c": True}])
def test_evaluations_of_other_rows_are_not_compared(tmp_path: Path, rows: dict[str, bool]) -> None:
    before, after = evaluation(tmp_path / "before", a=True, b=False), evaluation(tmp_path / "after", **rows)
    with pytest.raises(PipelineError, match=r"before and .*after are not of the same rows; evaluate both again$"):
        compare_evaluations(before, after)


@pytest.mark.parametrize("rows", [{"a": True, "b": True}, {"a": True, "c": True}])
def test_evaluations_by_different_backends_are_not_compared(tmp_path: Path, rows: dict[str, bool]) -> None:
    """The backend is told first: it may be why the rows differ."""
    before = evaluation(tmp_path / "before", "grouped", a=True, b=False)
    after = evaluation(tmp_path / "after", "peft", **rows)
    with pytest.raises(PipelineError) as told:
        compare_evaluations(before, after)
    assert str(told.value) == (
        f"the evaluation {before} was made by backend grouped and {after} by peft, so they are not comparable; "
        "set training.backend to one of them and evaluate both again"
    )


def test_evaluations_by_the_same_backend_are_compared_whichever_it_is(tmp_path: Path) -> None:
    before, after = (evaluation(tmp_path / name, "grouped", a=name == "after", b=True) for name in ("b", "after"))
    assert compare_evaluations(before, after)["gain"] == 0.5
