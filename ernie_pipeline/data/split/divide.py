"""The division into training and evaluation rows: seeded, and the same whatever order the rows come in."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import polars as pl

from ernie_pipeline.data.normalize.row_id import shuffle_keys
from ernie_pipeline.recipe.sections import Split
from ernie_pipeline.utils.errors import PipelineError

Decontaminate = Callable[[pl.DataFrame, pl.DataFrame], tuple[pl.DataFrame, pl.DataFrame]]
"""(rows, evaluation rows) -> (rows that share nothing with those, in their order; the others as dropped rows)."""


@dataclass(frozen=True)
class Division:
    """`rows` parted: each of them is in one of the four. `dropped` has the columns of `filters.DROPPED`."""

    train: pl.DataFrame
    evaluation: pl.DataFrame
    unused: pl.DataFrame
    dropped: pl.DataFrame


def divide(
    rows: pl.DataFrame,
    split: Split,
    decontaminate: Decontaminate | None = None,
    counts: Mapping[str, int] | None = None,
) -> Division:
    """Divide `rows` (with `row_id`, `group`, `kind`, `line`) in a random order that contents and `split.seed` decide.

    Evaluation gets its share of the first `split.rows` rows (0: all), each answer kind in proportion where
    `split.stratify`; a group goes there whole or not at all. Training gets the next rows that `decontaminate` lets
    pass, until `split.rows` are used together. At least one row goes to each.
    Raises `PipelineError` when there are too few rows; it then shows `counts`, the rows that each filter dropped.
    """
    _require(rows.height, split.rows, counts or {})
    ordered = in_order(rows, split.seed)
    used = split.rows or rows.height
    held_out = min(max(1, round(used * split.eval_fraction)), used - 1)
    chosen = _evaluation_groups(ordered, used, held_out, split.stratify)
    is_held_out = pl.col("group").is_in(chosen)
    evaluation, rest = ordered.filter(is_held_out), ordered.filter(~is_held_out)
    wanted = used - evaluation.height if split.rows else None
    train, unused, dropped = _training_rows(rest, evaluation, wanted, decontaminate)
    if train.height < (wanted or 1):
        overlap = {**(counts or {}), **dict(dropped["filter"].value_counts().iter_rows())}
        _require(evaluation.height + train.height, split.rows or rows.height, overlap)
    return Division(train, evaluation, unused, dropped)


def in_order(rows: pl.DataFrame, seed: int) -> pl.DataFrame:
    """The rows in the order of `seed`, a group's rows together."""
    return rows.with_columns(shuffle_keys(rows["group"], seed)).sort("place", "group", "row_id", "line").drop("place")


def _evaluation_groups(ordered: pl.DataFrame, used: int, held_out: int, stratify: bool) -> list[str]:
    """The groups whose rows are held out: in order, each kind up to its quota, then any until there are enough."""
    kind = pl.col("kind").first() if stratify else pl.lit("")
    groups = ordered.group_by("group", maintain_order=True).agg(kind=kind, size=pl.len())
    kinds = ordered[:used]["kind"] if stratify else pl.Series("kind", [""] * min(used, ordered.height))
    quotas = _quotas(dict(kinds.value_counts().iter_rows()), held_out)
    missing = sum(quotas.values())
    chosen: dict[str, None] = {}
    for within_quota in (True, False):
        for group, group_kind, size in groups.iter_rows():
            if not missing:
                break
            most = quotas.get(group_kind, 0) if within_quota else missing
            if group not in chosen and size <= most:
                quotas[group_kind] = quotas.get(group_kind, 0) - size
                missing -= size
                chosen[group] = None
    return list(chosen)


def _quotas(rows: Mapping[str, int], wanted: int) -> dict[str, int]:
    """`wanted` shared out in proportion to `rows` by the largest remainders (Hamilton's method)."""
    total = sum(rows.values())
    exact = {kind: wanted * count / total for kind, count in sorted(rows.items())}
    quotas = {kind: int(share) for kind, share in exact.items()}
    by_remainder = sorted(exact, key=lambda kind: (quotas[kind] - exact[kind], kind))
    for kind in by_remainder[: wanted - sum(quotas.values())]:
        quotas[kind] += 1
    return quotas


def _training_rows(
    rest: pl.DataFrame, evaluation: pl.DataFrame, wanted: int | None, decontaminate: Decontaminate | None
) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """(train, unused, dropped). Rows are taken in order until `wanted` pass (None: all); those behind are unused."""
    wanted = rest.height if wanted is None else wanted
    rest = rest.with_row_index("position")
    if decontaminate is None:
        kept, dropped = (
            rest,
            rest[:0].select("line", "question", "expected_answer", filter=pl.lit(""), reason=pl.lit("")),
        )
    else:
        kept, dropped = _enough_that_pass(rest, evaluation, wanted, decontaminate)
    train = kept[:wanted]
    last = kept["position"][wanted - 1] if kept.height >= wanted > 0 else rest.height
    taken = pl.col("line").is_in(pl.concat([train["line"], dropped["line"]]).implode())
    unused = rest.filter((pl.col("position") > last) | ~taken)
    dropped = dropped.join(unused.select("line"), on="line", how="anti", maintain_order="left")
    return train.drop("position"), unused.drop("position"), dropped


def _enough_that_pass(
    rest: pl.DataFrame, evaluation: pl.DataFrame, wanted: int, decontaminate: Decontaminate
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """`decontaminate` of as many rows of `rest`, in order, as it takes for `wanted` to pass, or of all of them."""
    looked_at = wanted + wanted // 8 + 64  # a few in a hundred are dropped
    while True:
        kept, dropped = decontaminate(rest[:looked_at], evaluation)
        if kept.height >= wanted or looked_at >= rest.height:
            return kept, dropped
        looked_at *= 2


def _require(available: int, wanted: int, counts: Mapping[str, int]) -> None:
    if wanted == 1:
        raise PipelineError("split.rows = 1 leaves nothing to train on; set it to 2 or more, or to 0 for all rows")
    needed = max(wanted, 2)
    if available >= needed:
        return
    dropped = ", ".join(f"{name} {count}" for name, count in counts.items() if count) or "none"
    left = "1 row is" if available == 1 else f"{available} rows are"
    raise PipelineError(
        f"{left} left where the split needs {needed} (dropped by the filters: {dropped}); "
        "lower split.rows, widen the bounds in [filters] and split.max_tokens, or use a larger source"
    )
