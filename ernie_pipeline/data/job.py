"""What the split's process is told, and what it does: a process of its own, for a tokenizer without torch.

transformers imports torch with a tokenizer wherever torch is installed: seconds, and more memory than the whole stage
takes besides. In a process that says it has no torch, tokenizers work as they do with it, and nothing else is lacking.
"""

import os
import sys
from pathlib import Path
from typing import Any

from ernie_pipeline.recipe.section import Section
from ernie_pipeline.recipe.sections import Decontamination, Filters, NearDuplicates, Split
from ernie_pipeline.utils.reporter import Reporter


class SplitJob(Section):
    """Make the split of the artifact in the folder `raw` into the folder `out`; `cache` as for `write_split`.

    The first four fields are the recipe's. `checkpoint` and `revision` as for `load_tokenizer`; `benchmark_sets` and
    `benchmarks_version` as for `load_benchmarks`.
    """

    filters: Filters
    near_duplicates: NearDuplicates
    decontamination: Decontamination
    split: Split
    checkpoint: str
    revision: str | None
    benchmark_sets: tuple[str, ...]
    benchmarks_version: str
    raw: Path
    out: Path
    cache: Path


def split_job(
    recipe: Any, base: tuple[str, str | None], benchmarks: tuple[tuple[str, ...], str], **places: Path
) -> SplitJob:
    """`recipe` needs the first four fields; `base`: checkpoint and revision; `benchmarks`: sets and version; `places`:
    raw, out and cache."""
    return SplitJob(
        filters=recipe.filters,
        near_duplicates=recipe.near_duplicates,
        decontamination=recipe.decontamination,
        split=recipe.split,
        checkpoint=base[0],
        revision=base[1],
        benchmark_sets=benchmarks[0],
        benchmarks_version=benchmarks[1],
        **places,
    )


def make(job: SplitJob, report: Reporter) -> None:
    """Make the split that `job` describes; errors as `load_tokenizer`, `load_benchmarks` and `write_split`."""
    from ernie_pipeline.data.make_split import write_split
    from ernie_pipeline.data.read.benchmark_sets import load_benchmarks
    from ernie_pipeline.models.checkpoint.tokenizer import load_tokenizer

    references = load_benchmarks(job.benchmark_sets, job.benchmarks_version)
    write_split(job.raw, job.out, job, references, load_tokenizer(job.checkpoint, job.revision), job.cache)


def prepare_process() -> None:
    """Make this process one for the split alone: without torch, and with freed memory given back soon.

    To be called before anything imports Polars, pyarrow or transformers.
    """
    sys.modules["torch"] = None  # type: ignore[assignment]  # to import it now fails, as where it is not installed
    # as fast, with a tenth less memory at the peak: of jemalloc, which Polars is built with; and of pyarrow, whose own
    # pool keeps what it has had
    os.environ.setdefault("_RJEM_MALLOC_CONF", "narenas:2,dirty_decay_ms:50,muzzy_decay_ms:0")
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
