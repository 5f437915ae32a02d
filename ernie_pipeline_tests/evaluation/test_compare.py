from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ernie_pipeline.evaluation.compare import compare_evaluations
from ernie_pipeline.utils.errors import PipelineError


def evaluation(folder: Path, **right: bool) -> Path:
    """An artifact with a grade for each row id."""
    folder.mkdir()
    pq.write_table(pa.table({"row_id": list(right), "right": list(right.values())}), folder / "predictions.parquet")
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
