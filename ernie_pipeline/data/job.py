"""What the split's process is told, and what it does: a process of its own, for a tokenizer without torch.

transformers imports torch with a tokenizer wherever torch is installed: seconds, and more memory than the whole stage
takes besides. In a process that says it has no torch, tokenizers work as they do with it, and nothing else is lacking.
"""

import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ernie_pipeline.recipe.sections import Decontamination, Filters, NearDuplicates, Split
from ernie_pipeline.utils.reporter import Reporter

SECTIONS = {"filters": Filters, "near_duplicates": NearDuplicates, "decontamination": Decontamination, "split": Split}


def split_job(
    recipe: Any,
    base: tuple[str, str | None],
    benchmarks: tuple[tuple[str, ...], str],
    raw: Path,
    out: Path,
    cache: Path,
) -> dict[str, Any]:
    """The job that `make` takes, as values of JSON's types. `recipe` needs `SECTIONS`.

    `base`: checkpoint and revision for `load_tokenizer`; `benchmarks`: sets and version for `load_benchmarks`. `raw`,
    `out` and `cache` as for `write_split`.
    """
    sections = {name: getattr(recipe, name).model_dump(mode="json") for name in SECTIONS}
    places = {"raw": str(raw), "out": str(out), "cache": str(cache)}
    return {"base": base, "benchmarks": benchmarks, **sections, **places}


def make(job: dict[str, Any], report: Reporter) -> None:
    """Make the split that `job` describes; errors as `load_tokenizer`, `load_benchmarks` and `write_split`."""
    from ernie_pipeline.data.make_split import write_split
    from ernie_pipeline.data.read.benchmark_sets import load_benchmarks
    from ernie_pipeline.models.checkpoint.tokenizer import load_tokenizer

    recipe = SimpleNamespace(**{name: section(**job[name]) for name, section in SECTIONS.items()})
    sets, version = job["benchmarks"]
    tokenizer, references = load_tokenizer(*job["base"]), load_benchmarks(tuple(sets), version)
    write_split(Path(job["raw"]), Path(job["out"]), recipe, references, tokenizer, Path(job["cache"]))


def prepare_process() -> None:
    """Make this process one for the split alone: without torch, and with freed memory given back soon.

    To be called before anything imports Polars, pyarrow or transformers.
    """
    sys.modules["torch"] = None  # type: ignore[assignment]  # to import it now fails, as where it is not installed
    # as fast, with a tenth less memory at the peak: of jemalloc, which Polars is built with; and of pyarrow, whose own
    # pool keeps what it has had
    os.environ.setdefault("_RJEM_MALLOC_CONF", "narenas:2,dirty_decay_ms:50,muzzy_decay_ms:0")
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
