"""The project's own data stage, called as its assets call it. The only file here that knows its entry points."""
# ruff: noqa: E402 (its process is prepared before Polars is imported)

from pathlib import Path
from typing import Any

from job import Job

from ernie_pipeline.data.job import prepare_process

prepare_process()  # what follows imports Polars

import polars as pl

from ernie_pipeline.data.make_raw import write_raw
from ernie_pipeline.data.make_split import write_split
from ernie_pipeline.data.read.benchmark_sets import load_benchmarks, resolve_benchmarks
from ernie_pipeline.data.read.source import resolve_source
from ernie_pipeline.models.checkpoint.tokenizer import load_tokenizer
from ernie_pipeline.recipe.load import parse_recipe
from ernie_pipeline.recipe.sections import Recipe


def prepare(checkpoint: Path) -> Any:
    """The tokenizer; not timed, for neither version."""
    return load_tokenizer(str(checkpoint))


def run(job: Job, tokenizer: Any) -> int:
    """Source file to training and evaluation Parquet; the number of rows in both."""
    recipe = _recipe(job)
    raw, split = job.out / "raw", job.out / "split"
    raw.mkdir()
    split.mkdir()
    write_raw(recipe.source, resolve_source(recipe.source), raw)
    sets = recipe.benchmarks.sets
    write_split(raw, split, recipe, load_benchmarks(sets, resolve_benchmarks(sets) if sets else "none"), tokenizer)
    return sum(
        pl.scan_parquet(split / f"{part}.parquet").select(pl.len()).collect().item() for part in ("train", "eval")
    )


def _recipe(job: Job) -> Recipe:
    """The project's defaults for this job."""
    whole = job.benchmark is not None
    table = {
        "source": {"kind": "file", "path": str(job.source)},
        "filters": dict.fromkeys(job.skip, False),
        "split": {"seed": job.seed, "eval_fraction": job.eval_fraction, "max_tokens": job.max_tokens},
        "near_duplicates": {"enabled": whole},
        "decontamination": {"enabled": whole},
        "benchmarks": {"sets": [str(job.benchmark)] if whole else []},
    }
    return parse_recipe(table, where="of the benchmark")
