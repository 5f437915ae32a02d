"""The filtered, templated rows, divided into training and evaluation."""

from pathlib import Path
from typing import Any

import dagster as dg

from ernie_pipeline.assets.report import OWNERS, Face, build_or_reuse, check, table
from ernie_pipeline.store.artifacts import Artifact
from ernie_pipeline.store.chain import Chain

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


def _write(chain: Chain, out: Path) -> None:
    from ernie_pipeline.data.make_split import write_split
    from ernie_pipeline.engines.chat import load_tokenizer
    from ernie_pipeline.engines.checkpoint import pinned_checkpoint

    recipe = chain.recipe
    tokenizer = load_tokenizer(*pinned_checkpoint(recipe.base_model.name, chain.version("base_model")))
    write_split(chain.artifact("raw_nemotron").folder, out, recipe.filters, recipe.split, tokenizer)


def _show(artifact: Artifact) -> Face:
    import polars as pl

    train, held_out = (pl.read_parquet(artifact.folder / f"{part}.parquet") for part in ("train", "eval"))
    dropped = pl.read_parquet(artifact.folder / "reports" / "dropped.parquet")
    counts = artifact.json("reports/counts.json")
    wanted = artifact.manifest["recipe"]["split"]["rows"]
    total = len(train) + len(held_out)
    shared = train.join(held_out, on="question", how="semi").height
    return Face(
        metadata={
            "dagster/row_count": total,
            "training rows": len(train),
            "evaluation rows": len(held_out),
            "training tokens": int(train["tokens"].sum()),
            "longest row (tokens)": int(pl.concat([train["tokens"], held_out["tokens"]]).max()),  # type: ignore[arg-type]
            "dropped by reason": table([{"filter": name, "rows": rows} for name, rows in counts.items()]),
            **({"sample of dropped": table(_dropped_sample(dropped))} if len(dropped) else {}),
            "sample": dg.MetadataValue.md(_sample(train.head(SHOWN_SAMPLES).to_dicts())),
        },
        checks=[
            check(
                "sizes",
                len(train) > 0 and len(held_out) > 0 and wanted in (0, total),
                f"{len(train)} training and {len(held_out)} evaluation rows"
                + (f" of {wanted} asked for" if wanted else ""),
            ),
            check("no_overlap", shared == 0, f"{shared} questions stand in both parts"),
        ],
    )


def _dropped_sample(dropped: Any) -> list[dict[str, Any]]:
    columns = ["line", "filter", "reason", "question"]
    return [{k: "" if v is None else v for k, v in row.items()} for row in dropped.select(columns).head(20).to_dicts()]


def _sample(rows: list[dict[str, Any]]) -> str:
    return "\n\n".join(f"```\n{row['prompt_text']}⟦{row['completion_text']}⟧\n```" for row in rows)
