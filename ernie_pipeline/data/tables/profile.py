"""A profile of the split, for people: how long the rows are, what their answers are, what was dropped and why."""

from collections.abc import Iterable, Mapping
from typing import Any

import polars as pl

from ernie_pipeline.data.tables.ledger import places_of

BINS = (32, 64, 128, 256, 512, 1024, 2048, 4096)
"""Upper ends of the histogram's bins, in tokens."""
BAR = 30
SHOWN = 3
SHOWN_CHARS = 160

Profile = dict[str, Any]


def make_profile(
    train: pl.DataFrame,
    held_out: pl.DataFrame,
    tokens: Iterable[pl.Series],
    ledger: pl.DataFrame,
    counts: Mapping[str, int],
) -> Profile:
    """The profile as plain values. `train` and `held_out` are `SplitRows`, `ledger` a `Ledger`, `counts` by filter.

    `tokens` has the lengths of some rows of either part, which stand for all.
    """
    parts = {"train": train, "evaluation": held_out}
    kinds = pl.concat([part["kind"] for part in parts.values()]).unique().sort()
    return {
        "places": places_of(ledger),
        "dropped": dict(counts),
        "tokens": {name: _lengths(lengths) for name, lengths in zip(parts, tokens, strict=True)},
        "kinds": {kind: {name: int((part["kind"] == kind).sum()) for name, part in parts.items()} for kind in kinds},
        "kept": spread(train.select("question", "answer", "kind"), SHOWN).to_dicts(),
        "first_dropped": _first_dropped(ledger, counts),
    }


def spread(part: pl.DataFrame, count: int) -> pl.DataFrame:
    """At most `count` rows, evenly from the whole of `part`: at its head one kind of answer may be rarer."""
    return part.gather_every(max(1, -(-part.height // count))).head(count)


def profile_markdown(profile: Profile) -> str:
    """The profile as Markdown."""
    parts = list(profile["tokens"])
    return "\n\n".join(
        [
            "## Where the rows went",
            _table(["place", "rows"], [[place, f"{rows:,}"] for place, rows in profile["places"].items()]),
            _table(
                ["filter", "rows dropped"], [[name, f"{rows:,}"] for name, rows in profile["dropped"].items() if rows]
            ),
            "## Tokens a row (prompt and completion)",
            _table(
                ["", *parts],
                [
                    [figure, *(f"{profile['tokens'][part][figure]:,}" for part in parts)]
                    for figure in ("rows measured", "mean", "median", "p95", "longest")
                ],
            ),
            *(f"{part}:\n\n```\n{_bars(profile['tokens'][part]['histogram'])}\n```" for part in parts),
            "## Kinds of answer",
            _table(
                ["kind", *parts],
                [[kind, *(f"{rows[part]:,}" for part in parts)] for kind, rows in profile["kinds"].items()],
            ),
            "## Samples that were kept",
            _table(["question", "answer", "kind"], [[*map(_cell, row.values())] for row in profile["kept"]]),
            "## Samples that were dropped",
            _table(
                ["line", "filter", "reason", "question"],
                [[*map(_cell, row.values())] for row in profile["first_dropped"]],
            ),
        ]
    )


def _lengths(tokens: pl.Series) -> dict[str, Any]:
    edges = [0, *BINS]
    histogram = {
        f"{low + 1} to {high}": int(((tokens > low) & (tokens <= high)).sum())
        for low, high in zip(edges, BINS, strict=False)
    }
    histogram[f"over {BINS[-1]}"] = int((tokens > BINS[-1]).sum())
    return {
        "rows measured": len(tokens),
        "mean": round(float(tokens.mean() or 0), 1),  # type: ignore[arg-type]
        "median": int(tokens.median() or 0),  # type: ignore[arg-type]
        "p95": int(tokens.quantile(0.95, "nearest") or 0),
        "longest": int(tokens.max() or 0),  # type: ignore[arg-type]
        "histogram": {name: rows for name, rows in histogram.items() if rows},
    }


def _first_dropped(ledger: pl.DataFrame, counts: Mapping[str, int]) -> list[dict[str, Any]]:
    """The first rows that each filter dropped, in the filters' order."""
    dropped = ledger.filter(pl.col("place") == "dropped")
    columns = ["line", "filter", "reason", "question"]
    samples = [
        dropped.filter(pl.col("filter") == name).select(columns).head(SHOWN) for name, rows in counts.items() if rows
    ]
    return pl.concat(samples).to_dicts() if samples else []


def _bars(histogram: Mapping[str, int]) -> str:
    most, width = max(histogram.values(), default=1), max(map(len, histogram), default=0)
    return "\n".join(f"{name:>{width}} {'█' * max(1, round(BAR * n / most))} {n:,}" for name, n in histogram.items())


def _table(header: list[str], rows: list[list[str]]) -> str:
    if not rows:
        return "none"
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(value: Any) -> str:
    text = "" if value is None else " ".join(str(value).split())
    text = text if len(text) <= SHOWN_CHARS else text[:SHOWN_CHARS] + "..."
    return f"`{text.replace('`', chr(39)).replace('|', '¦')}`" if text else ""
