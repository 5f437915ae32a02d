"""The filtered, templated rows, divided into training and evaluation."""

from pathlib import Path
from typing import Any

import dagster as dg

from ernie_pipeline.assets.report import OWNERS, build_or_reuse, table
from ernie_pipeline.store.artifacts import Artifact, Check
from ernie_pipeline.store.stage import Work

SHOWN_SAMPLES = 3


@dg.asset(
    deps=["raw_nemotron", "base_model"],
    group_name="data",
    kinds={"polars", "parquet", "huggingface"},
    owners=OWNERS,
    description="The rows that pass the filters, in the base model's chat template, divided into train and evaluation.",
    check_specs=[
        dg.AssetCheckSpec("sizes", asset="math_split", blocking=True, description="Both parts have their rows."),
        dg.AssetCheckSpec("no_overlap", asset="math_split", blocking=True, description="No problem is in both parts."),
    ],
)
def math_split(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
    return build_or_reuse(context, _write, _show)


def _write(work: Work, out: Path) -> list[Check]:
    from ernie_pipeline.data.make_split import write_split
    from ernie_pipeline.engines.chat import load_tokenizer
    from ernie_pipeline.engines.checkpoint import pinned_checkpoint

    recipe = work.recipe
    tokenizer = load_tokenizer(*pinned_checkpoint(recipe.base_model.name, work.made_from.inputs["base_model"]))
    tables = write_split(work.folder("raw_nemotron"), out, recipe.filters, recipe.split, tokenizer)
    train, held_out, wanted = len(tables.train), len(tables.eval), recipe.split.rows
    shared = tables.train.join(tables.eval, on="question", how="semi").height
    return [
        Check(
            "sizes",
            train > 0 and held_out > 0 and wanted in (0, train + held_out),
            f"{train} training and {held_out} evaluation rows" + (f" of {wanted} asked for" if wanted else ""),
        ),
        Check("no_overlap", shared == 0, f"{shared} questions stand in both parts"),
    ]


def _show(artifact: Artifact) -> dict[str, Any]:
    import polars as pl

    train, held_out = (pl.read_parquet(artifact.folder / f"{part}.parquet") for part in ("train", "eval"))
    dropped = pl.read_parquet(artifact.folder / "reports" / "dropped.parquet")
    counts = artifact.json("reports/counts.json")
    return {
        "dagster/row_count": len(train) + len(held_out),
        "training rows": len(train),
        "evaluation rows": len(held_out),
        "training tokens": int(train["tokens"].sum()),
        "longest row (tokens)": int(pl.concat([train["tokens"], held_out["tokens"]]).max()),  # type: ignore[arg-type]
        "dropped by reason": table([{"filter": name, "rows": rows} for name, rows in counts.items()]),
        **({"sample of dropped": table(_dropped_sample(dropped))} if len(dropped) else {}),
        "sample": dg.MetadataValue.md(_sample(train.head(SHOWN_SAMPLES).to_dicts())),
    }


def _dropped_sample(dropped: Any) -> list[dict[str, Any]]:
    columns = ["line", "filter", "reason", "question"]
    return [{k: "" if v is None else v for k, v in row.items()} for row in dropped.select(columns).head(20).to_dicts()]


def _sample(rows: list[dict[str, Any]]) -> str:
    return "\n\n".join(f"```\n{row['prompt_text']}⟦{row['completion_text']}⟧\n```" for row in rows)
