"""The source's rows, checked one by one, as Parquet with their source line."""

from pathlib import Path

import dagster as dg

from ernie_pipeline.assets.report import OWNERS, Face, build_or_reuse, check, table
from ernie_pipeline.store.artifacts import Artifact
from ernie_pipeline.store.chain import Chain


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


def _write(chain: Chain, out: Path) -> None:
    from ernie_pipeline.data.make_raw import write_raw

    write_raw(chain.recipe.source, chain.version("nemotron_source"), out)


def _show(artifact: Artifact) -> Face:
    import polars as pl

    from ernie_pipeline.data.rows import ROWS

    rows = pl.scan_parquet(artifact.folder / "rows.parquet")
    bad = pl.read_parquet(artifact.folder / "reports" / "bad_rows.parquet")
    count = rows.select(pl.len()).collect().item()
    schema = rows.collect_schema()
    return Face(
        metadata={
            "dagster/row_count": count,
            "source version": artifact.manifest["inputs"]["nemotron_source"],
            "bad rows": len(bad),
            **({"first bad rows": table(bad.head(20).to_dicts())} if len(bad) else {}),
            "sample": table(rows.select("line", "question", "expected_answer").head(5).collect().to_dicts()),
        },
        checks=[check("schema", schema == ROWS and count > 0, f"{count} rows, {len(bad)} bad ones left out")],
    )
