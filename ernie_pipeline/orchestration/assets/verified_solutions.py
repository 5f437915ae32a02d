"""The model's own worked solutions of the training problems: sampled, graded, the right ones kept."""

import json
from pathlib import Path

import dagster as dg

from ernie_pipeline.orchestration.assets.math_split import checked_split
from ernie_pipeline.orchestration.assets.qlora_adapter import training
from ernie_pipeline.orchestration.gpu import GpuResource
from ernie_pipeline.orchestration.pages.solutions import show_solutions
from ernie_pipeline.orchestration.recipes import each_recipe
from ernie_pipeline.orchestration.report import OWNERS, Building, build_or_reuse
from ernie_pipeline.recipe.settings import Settings
from ernie_pipeline.solutions.not_asked_for import write_not_asked_for
from ernie_pipeline.staleness.chain import Chain, Write
from ernie_pipeline.staleness.stage import EARLIER_ADAPTER, EARLIER_SOLUTIONS, Work
from ernie_pipeline.store.artifacts import Check
from ernie_pipeline.store.quantized_base import FOLDER
from ernie_pipeline.utils.shares import percent

ENOUGH, NO_HELD_OUT = "enough_solutions", "no_held_out"


def _check(name: str, description: str) -> dg.AssetCheckSpec:
    return dg.AssetCheckSpec(name, asset="verified_solutions", blocking=True, description=description)


@each_recipe(
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

    return build_or_reuse(context, sampling(context, gpu), show_solutions, build_above=earlier_rounds)


def sampling(context: dg.AssetExecutionContext, gpu: GpuResource) -> Write:
    """What fills the artifact, if the recipe asks for solutions."""

    def write(work: Work, out: Path) -> list[Check]:
        from ernie_pipeline.solutions.job import solutions_job

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
    found = f"{metrics['solved']} of {metrics['problems']} problems are solved ({percent(metrics['solved_share'])})"
    cure = "raise solutions.samples, use a stronger base model, or lower solutions.min_solved"
    if metrics["solved_share"] >= wanted:
        return Check(ENOUGH, True, found)
    return Check(ENOUGH, False, f"{found}, and solutions.min_solved asks for {percent(wanted)}; {cure}")


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
