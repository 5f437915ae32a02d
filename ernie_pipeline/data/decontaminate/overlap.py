r"""Decontamination: rows that ask what a benchmark question asks, or one of our own evaluation rows, are dropped.

Two questions are compared by their features, tokens and pairs of neighbouring tokens (`tokens.py`: the same however
they are spelled), each with its weight (`weights.py`: a stock phrase weighs nothing). Of a reference R and a row Q:

    shared = w(R and Q),    score = shared / max(min(w(R), w(Q)), w(R) / 2)

so the score is the share of the shorter one that is in the other, and a row that holds less than half of a reference
counts as a half. A row is dropped when its tokens are those of a reference, one for one, or when all of these hold:

- `score` is at least `decontamination.overlap` (0.6);
- `shared` is evidence: `LEAST` times what a feature weighs that nobody else has, and half of w(Q) or `ENOUGH` times; or
  nearly all features are common, whatever they weigh. With less, the reference must stand in the row as sentences of
  its own, or close together: a short question must not be found in pieces all over a long row (`pairs.py`);
- their numbers agree: numbers are what tells the questions of one template apart (`numbers.py`).

Measured (benchmarks/data/README.md): of 300 questions of each of four families, spelled otherwise in twelve ways, all
are found but for a few in a thousand, and of 4,000 innocent rows of each family 2, 0, 0 and 0 go. With 0.5 or 0.7 for
0.6 it is hardly another row: nearly all respelled questions score above 0.8, and numbers tell the innocent ones apart.

Compared are pairs that share features which `RARE` of the source has at most; a question that has none (all of it is
stock) is found where it is equal only. Since weights are those of a source as a whole, whether a row goes depends on
the others a little: rows that are appended move each weight by about their share of the source, and with it a score
that stands at the threshold. Neither order nor threads matter.
"""

import numpy as np
import polars as pl

from ernie_pipeline.data.decontaminate.numbers import Texts, agreeing
from ernie_pipeline.data.decontaminate.pairs import EQUAL, alike_pairs
from ernie_pipeline.data.decontaminate.weights import Source
from ernie_pipeline.data.filter.reasons import drop_rows, quoted
from ernie_pipeline.data.normalize.words import Hashes, Words, spread
from ernie_pipeline.recipe.sections import Decontamination

BENCHMARKS = "benchmark_overlap"
EVALUATION = "evaluation_overlap"

OVERLAPS = pl.Schema(
    {"index": pl.UInt32, "set": pl.String, "row": pl.Int64, "question": pl.String, "score": pl.Float64}
)


def overlaps(
    rows: pl.DataFrame, references: pl.DataFrame, overlap: float, source: Source | None = None
) -> pl.DataFrame:
    """`OVERLAPS`: for each row (`line`, `question`; its `index`) that asks what a reference asks, the reference that it
    is most like, of several the smallest `set`, then `row`.

    `references`: `set`, `row`, `question`. `source`: all rows that features are counted in, `rows` among them; `rows`
    themselves if it is not given.
    """
    references = references.sort("set", "row", "question")
    best = asked_pairs(rows, references, overlap, source)
    best = best.sort("index", "score", "reference", descending=[False, True, False])
    best = best.unique("index", keep="first", maintain_order=True)
    names = references[best["reference"]].select("set", "row", "question")
    return best.select("index", "score").hstack(names).select(OVERLAPS.names()).cast(OVERLAPS)


def asked_pairs(
    rows: pl.DataFrame, references: pl.DataFrame, overlap: float, source: Source | None = None
) -> pl.DataFrame:
    """`EQUAL`: each pair of a reference and a row (`index`) that asks what it asks, with its score.

    `rows`: `line`, `question`; `references`: `question`; `source` as for `overlaps`. A pair may stand there twice.
    """
    if references.is_empty() or rows.is_empty():
        return pl.DataFrame(schema=EQUAL)
    source = source or Source.of(rows)
    known, asked = Texts.of(references["question"]), Texts(rows["question"], source.take(rows["line"]))
    alike = [agreeing(pairs, known, asked) for pairs in alike_pairs(known.tokens, asked.tokens, source, overlap)]
    return pl.concat([_equal(known.tokens, asked.tokens), *alike])


def decontaminate(
    rows: pl.DataFrame,
    references: pl.DataFrame,
    settings: Decontamination,
    name: str = BENCHMARKS,
    source: Source | None = None,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """(kept, dropped): rows that ask nothing that a reference asks, and the others as rows of the ledger of drops.

    `name` is the filter's name there. `references` and `source` as for `overlaps`; kept rows stay in their order.
    """
    if not settings.enabled:
        references = references.clear()
    found = overlaps(rows, references, settings.overlap, source)
    percent = (pl.col("score") * 100).floor().cast(pl.Int64)
    shared = found.select(
        pl.format("{} % of {} row {}: {}", percent, "set", "row", quoted(pl.col("question")))
    ).to_series()
    reasons = pl.repeat(None, rows.height, dtype=pl.String, eager=True).scatter(found["index"], shared)
    kept, dropped = pl.collect_all(drop_rows(rows.lazy(), name, pl.lit(reasons)))
    return kept, dropped


def references_of(rows: pl.DataFrame) -> pl.DataFrame:
    """Our own evaluation rows (`line`, `question`) as references."""
    return rows.select(set=pl.lit("evaluation"), row=pl.col("line").cast(pl.Int64), question=pl.col("question"))


def _equal(known: Words, asked: Words) -> pl.DataFrame:
    """`EQUAL` of equal tokens, with the score 1."""
    whole = pl.DataFrame({"whole": _wholes(asked)}).with_row_index("index").filter(pl.Series(asked.lengths > 0))
    of_known = pl.DataFrame({"whole": _wholes(known)}).with_row_index("reference").filter(pl.Series(known.lengths > 0))
    pairs = whole.join(of_known.unique("whole", keep="first", maintain_order=True), on="whole")
    return pairs.select("reference", "index", score=pl.lit(1.0)).cast(EQUAL)


def _wholes(words: Words) -> Hashes:
    """A hash of each row's tokens in their order."""
    places = spread(np.zeros(len(words), np.int64), words.lengths).astype(np.uint64)
    mixed = (words.vocabulary[words.codes] + places) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(29))) * (np.uint64(2) * places + np.uint64(1))
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(mixed, dtype=np.uint64)])
    wholes: Hashes = sums[words.offsets[1:]] - sums[words.offsets[:-1]]
    return wholes
