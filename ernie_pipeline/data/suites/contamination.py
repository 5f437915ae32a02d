"""Which problems of a suite a training row asks, however it is spelled: as decontamination finds it."""

from pathlib import Path

import polars as pl

from ernie_pipeline.data.decontaminate.overlap import asked_pairs
from ernie_pipeline.data.normalize.text import question_key
from ernie_pipeline.data.suites.problems import FILE as PROBLEMS
from ernie_pipeline.data.tables.parquet import write_table

FILE = "contamination.parquet"
CONTAMINATED = pl.Schema(
    {
        "row_id": pl.String,
        "question": pl.String,
        "training_row_id": pl.String,
        "training_question": pl.String,
        "score": pl.Float64,
    }
)


def write_contamination(problems: Path, split: Path, overlap: float, out: Path) -> int:
    """Write `contamination.parquet` of two artifacts into the folder `out`; how many training rows were held against.

    The training rows are those of the split, whether the model is trained on their answers or on its own solutions of
    them. `overlap`: as decontamination.overlap.
    """
    training = pl.read_parquet(split / "train.parquet", columns=["row_id", "question"])
    found = contaminated(pl.read_parquet(problems / PROBLEMS, columns=["row_id", "question"]), training, overlap)
    write_table(found, out / FILE)
    return training.height


def contaminated(problems: pl.DataFrame, training: pl.DataFrame, overlap: float) -> pl.DataFrame:
    """`CONTAMINATED`: each problem that a training row asks, with the row that is most like it. Both: row_id, question.

    A problem counts as decontamination counts a benchmark's question, see `data/decontaminate/overlap.py`.
    """
    keyed = problems.with_row_index("place").with_columns(key=question_key(pl.col("question")))
    references = keyed.unique("key", keep="first", maintain_order=True)
    rows = training.with_columns(line=pl.int_range(1, pl.len() + 1, dtype=pl.Int64))
    pairs = asked_pairs(rows.select("line", "question"), references.select("question"), overlap)
    pairs = pairs.sort("reference", "score", "index", descending=[False, True, False])
    best = pairs.unique("reference", keep="first", maintain_order=True)
    of_training = training[best["index"]].select(training_row_id="row_id", training_question="question")
    asked = references[best["reference"]].select("key").hstack(of_training).hstack([best["score"]])
    return keyed.join(asked, on="key").sort("place").select(CONTAMINATED.names()).cast(CONTAMINATED)
