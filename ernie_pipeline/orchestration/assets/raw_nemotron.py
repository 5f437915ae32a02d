"""The source's rows, checked one by one, as Parquet with their source line."""

from pathlib import Path
from typing import Any

import dagster as dg

from ernie_pipeline.orchestration.pages.split import show_raw
from ernie_pipeline.orchestration.recipes import each_recipe
from ernie_pipeline.orchestration.report import OWNERS, build_or_reuse
from ernie_pipeline.staleness.stage import Work
from ernie_pipeline.store.artifacts import Check


@each_recipe(
    deps=["nemotron_source"],
    group_name="data",
    kinds={"polars", "parquet"},
    owners=OWNERS,
    description="The source's rows, each checked against the schema, as Parquet with their line in the source.",
    check_specs=[dg.AssetCheckSpec("schema", asset="raw_nemotron", blocking=True, description="Rows have the schema.")],
)
def raw_nemotron(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
    return build_or_reuse(context, _write, show_raw)


def _write(work: Work, out: Path) -> list[Check]:
    import polars as pl

    from ernie_pipeline.data.make_raw import write_raw
    from ernie_pipeline.data.read.row_schema import ROWS

    write_raw(work.recipe.source, work.made_from.inputs["nemotron_source"], out)
    schema, count = _rows(out).collect_schema(), _count(_rows(out))
    bad = _count(pl.scan_parquet(out / "bad_rows.parquet"))
    return [Check("schema", schema == ROWS and count > 0, f"{count} rows, {bad} bad ones left out")]


def _rows(folder: Path) -> Any:
    import polars as pl

    return pl.scan_parquet(folder / "rows.parquet")


def _count(frame: Any) -> int:
    import polars as pl

    return int(frame.select(pl.len()).collect().item())
