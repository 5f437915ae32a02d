"""The source's rows, checked one by one, as Parquet with their source line."""

from pathlib import Path
from typing import Any

import dagster as dg

from ernie_pipeline.orchestration.report import OWNERS, build_or_reuse, table
from ernie_pipeline.staleness.stage import Work
from ernie_pipeline.store.artifacts import Artifact, Check

SHOWN_COLUMNS = 50


@dg.asset(
    deps=["nemotron_source"],
    group_name="data",
    kinds={"polars", "parquet"},
    owners=OWNERS,
    description="The source's rows, each checked against the schema, as Parquet with their line in the source.",
    check_specs=[dg.AssetCheckSpec("schema", asset="raw_nemotron", blocking=True, description="Rows have the schema.")],
)
def raw_nemotron(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
    return build_or_reuse(context, _write, _show)


def _write(work: Work, out: Path) -> list[Check]:
    import polars as pl

    from ernie_pipeline.data.make_raw import write_raw
    from ernie_pipeline.data.read.row_schema import ROWS

    write_raw(work.recipe.source, work.made_from.inputs["nemotron_source"], out)
    schema, count = _rows(out).collect_schema(), _count(_rows(out))
    bad = _count(pl.scan_parquet(out / "bad_rows.parquet"))
    return [Check("schema", schema == ROWS and count > 0, f"{count} rows, {bad} bad ones left out")]


def _show(artifact: Artifact) -> dict[str, Any]:
    import polars as pl

    rows = _rows(artifact.folder)
    bad = pl.read_parquet(artifact.folder / "bad_rows.parquet")
    left_out = artifact.json("reports/columns.json")["left_out"]
    return {
        "dagster/row_count": _count(rows),
        "source version": artifact.manifest["inputs"]["nemotron_source"],
        "bad rows": len(bad),
        **({"first bad rows": table(bad.head(20).to_dicts())} if len(bad) else {}),
        **({"columns left out": _listed(left_out)} if left_out else {}),
        "sample": table(rows.select("line", "question", "expected_answer").head(5).collect().to_dicts()),
    }


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN_COLUMNS} more" if len(names) > SHOWN_COLUMNS else ""
    return ", ".join(names[:SHOWN_COLUMNS]) + more


def _rows(folder: Path) -> Any:
    import polars as pl

    return pl.scan_parquet(folder / "rows.parquet")


def _count(frame: Any) -> int:
    import polars as pl

    return int(frame.select(pl.len()).collect().item())
