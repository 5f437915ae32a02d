"""What one measured run is asked to do; the same for both versions."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Job:
    """`source`: JSONL rows. `out`: an empty folder. `tokenizer`: a checkpoint folder.

    `benchmark`: questions to decontaminate against, None for neither that nor near duplicates (ours only).
    `count_tokens` and `processes` concern the `datasets` version only. `skip`: names of text rules that are left out.
    """

    source: Path
    out: Path
    tokenizer: Path
    benchmark: Path | None = None
    count_tokens: bool = False
    processes: int = 1
    skip: tuple[str, ...] = ()
    seed: int = 3407
    eval_fraction: float = 0.05
    max_tokens: int = 2048
