"""The model's own worked solutions of the training problems: sampled, graded, the right ones kept."""

import json
from pathlib import Path
from typing import Any

import dagster as dg

from ernie_pipeline.orchestration.assets.math_split import checked_split
from ernie_pipeline.orchestration.assets.qlora_adapter import training
from ernie_pipeline.orchestration.gpu import GpuResource
from ernie_pipeline.orchestration.plots import pass_rates
from ernie_pipeline.orchestration.report import OWNERS, Building, build_or_reuse, table
from ernie_pipeline.recipe.settings import Settings
from ernie_pipeline.solutions.job import solutions_job
from ernie_pipeline.solutions.not_asked_for import is_asked_for, write_not_asked_for
from ernie_pipeline.staleness.chain import Chain, Write
from ernie_pipeline.staleness.stage import EARLIER_ADAPTER, EARLIER_SOLUTIONS, Work
from ernie_pipeline.store.artifacts import Artifact, Check
from ernie_pipeline.store.quantized_base import FOLDER

SHOWN = 10
"""Solutions, and failed attempts."""
ENOUGH, NO_HELD_OUT = "enough_solutions", "no_held_out"


def _check(name: str, description: str) -> dg.AssetCheckSpec:
    return dg.AssetCheckSpec(name, asset="verified_solutions", blocking=True, description=description)


@dg.asset(
    deps=["math_split", "base_model"],
    group_name="data",
    kinds={"pytorch", "parquet"},
    owners=OWNERS,
    pool="gpu",
    description="The base model's own solutions of the training problems, sampled and graded; right ones kept.",
    check_specs=[
        _check(ENOUGH, "The share solutions.min_solved of the problems has a kept solution."),
        _check(NO_HELD_OUT, "No kept solution is of a held-out question."),
    ],
)
def verified_solutions(context: dg.AssetExecutionContext, gpu: GpuResource) -> dg.MaterializeResult:
    def earlier_rounds(chain: Chain) -> None:
        """Solutions and adapter of each round before, in their order: artifacts of this recipe with fewer rounds."""
        if chain.earlier is None:
            return
        earlier_rounds(chain.earlier)
        for name, write in (("verified_solutions", sampling(context, gpu)), ("qlora_adapter", training(context, gpu))):
            told = Building(context, chain.earlier, name).told(write)
            artifact = chain.earlier.reuse_or_build(name, told, on_wait=context.log.info)
            done = "reused" if artifact.reused else "built"
            round_ = chain.earlier.recipe.solutions.rounds
            context.log.info(f"round {round_}: {done} {name} {artifact.data_version}")

    return build_or_reuse(context, sampling(context, gpu), _show, build_above=earlier_rounds)


def sampling(context: dg.AssetExecutionContext, gpu: GpuResource) -> Write:
    """What fills the artifact, if the recipe asks for solutions."""

    def write(work: Work, out: Path) -> list[Check]:
        if work.recipe.training.on != "solutions":
            write_not_asked_for(out)
            return [Check(name, True, 'not asked for: training.on is "answers"') for name in (ENOUGH, NO_HELD_OUT)]
        split, later = checked_split(work), EARLIER_ADAPTER in work.artifacts
        job = solutions_job(
            work.recipe,
            work.made_from.inputs["base_model"],
            Settings.from_environment().store / FOLDER,
            work.folder(EARLIER_ADAPTER) if later else None,
            earlier=work.folder(EARLIER_SOLUTIONS) if later else None,
            execution=gpu.execution_over(work.recipe.execution),
            limits=gpu.limits(),
            split=split,
            out=out,
            rows=work.rows,
        )
        gpu.run(context, "solutions", job, unfinished=work.unfinished)
        return [_enough(out, work.recipe.solutions.min_solved), _no_held_out(out, split)]

    return write


def _enough(out: Path, wanted: float) -> Check:
    metrics = json.loads((out / "metrics.json").read_text())
    found = f"{metrics['solved']} of {metrics['problems']} problems are solved ({metrics['solved_share']:.1%})"
    cure = "raise solutions.samples, use a stronger base model, or lower solutions.min_solved"
    if metrics["solved_share"] >= wanted:
        return Check(ENOUGH, True, found)
    return Check(ENOUGH, False, f"{found}, and solutions.min_solved asks for {wanted:.1%}; {cure}")


def _no_held_out(out: Path, split: Path) -> Check:
    """What the files say once they are written: no question in both."""
    import polars as pl

    from ernie_pipeline.data.normalize.text import question_key

    def keys(*files: Path) -> pl.DataFrame:
        tables = [pl.read_parquet(file, columns=["question"]) for file in files]
        return pl.concat(tables).select(question_key(pl.col("question"))).unique()

    kept, held_out = keys(out / "train.parquet", out / "validation.parquet"), keys(split / "eval.parquet")
    shared = kept.join(held_out, on=kept.columns, how="semi").height
    return Check(NO_HELD_OUT, shared == 0, f"{shared} of {kept.height} questions with solutions are held out")


def _show(artifact: Artifact) -> dict[str, Any]:
    if not is_asked_for(artifact.folder):
        return {"solutions": 'not asked for: training.on is "answers"', "dagster/row_count": 0}
    metrics, run = artifact.json("metrics.json"), artifact.json("reports/run.json")
    rounds, kinds = metrics.pop("rounds"), metrics.pop("by_kind")
    return {
        "dagster/row_count": metrics["train_solutions"] + metrics["validation_solutions"],
        "pass rate": metrics["pass_rate"],
        "solved problems": metrics["solved"],
        "always solved": metrics["always"],
        "sometimes solved": metrics["sometimes"],
        "never solved": metrics["never"],
        "all attempts truncated": metrics["all_truncated"],
        "kept solutions": metrics["kept"],
        "share truncated": metrics["truncated_share"],
        "pass rates": dg.MetadataValue.md(pass_rates(metrics.pop("pass_rates"))),
        "pass at k": table([{"k": int(k), "share of problems": value} for k, value in metrics.pop("pass_at").items()]),
        **{name.replace("_", " "): value for name, value in run.items()},
        "metrics": table([{"metric": name, "value": float(value)} for name, value in metrics.items()]),
        "pass rate by kind of answer": table([{"kind": kind, **values} for kind, values in kinds.items()]),
        "rounds": table([_plain(values) for values in rounds]),
        **_examples(artifact.folder),
    }


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if not isinstance(value, dict)}


def _examples(folder: Path) -> dict[str, Any]:
    """Some kept solutions, and some attempts that failed, with the reason."""
    import polars as pl

    attempts = pl.read_parquet(folder / "attempts.parquet")
    kept = attempts.filter("kept").select("question", "reference", "text", "tokens", "round")
    failed = attempts.filter(~pl.col("strict"))
    failed = failed.select("question", "reference", "text", "outcome", "ended", "reason")
    return {
        "solutions": table(kept.head(SHOWN).to_dicts()),
        "failed attempts": table(failed.head(SHOWN).to_dicts()),
    }
