"""A part of an evaluation's answers: kept, and by the generator that the execution names."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ernie_pipeline.evaluation.evaluate import evaluate
from ernie_pipeline.evaluation.job import EvaluationJob
from ernie_pipeline.models.generation.vllm.interpreter import PYTHON
from ernie_pipeline.recipe.execution import ExecutionOverrides
from ernie_pipeline.store.row_cache import KeptRows, read_rows
from ernie_pipeline.store.row_part import RowPart
from ernie_pipeline.utils.errors import PipelineError


def quiet(line: str, values: dict[str, Any]) -> None:
    pass


def test_the_parts_are_the_whole_and_a_part_keeps_nothing_of_another_generator(
    make_evaluation: Callable[..., EvaluationJob], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = KeptRows(folder=tmp_path / "kept")
    job = make_evaluation().model_copy(update={"rows": kept, "part": RowPart(number=0, of=2)})
    monkeypatch.setenv(PYTHON, str(tmp_path / "no python"))
    with pytest.raises(PipelineError, match=r"no python"):
        evaluate(job.model_copy(update={"execution": ExecutionOverrides(generator="vllm==0.23.0")}), quiet)
    assert read_rows(kept.folder) == {}
    evaluate(job, quiet)
    first = read_rows(kept.folder)
    evaluate(job.model_copy(update={"part": RowPart(number=1, of=2)}), quiet)
    assert 0 < len(first) < len(read_rows(kept.folder))
