"""`python -m ernie_pipeline.models.grouped.pack JOB.json`: quantise a base model with Unsloth and write it.

The one place that imports Unsloth, and nothing else of the package runs beside it.
"""

import json
import sys
from pathlib import Path
from typing import Any


def pack(job: dict[str, Any]) -> None:
    """Fill the folder `out` from the checkpoint in `base`; `quantization` is what `unsloth_engine` lets through."""
    import unsloth  # noqa: F401  # first of all, as it asks
    from unsloth import FastModel

    from ernie_pipeline.models.grouped.quantized_base import write_packed

    base = job["base"]
    model, _ = FastModel.from_pretrained(
        model_name=base["checkpoint"],
        revision=base["revision"],
        load_in_4bit=True,
        dtype=None,
        local_files_only=base["revision"] is None,
        use_exact_model_name=True,  # else it may take another repository, quantised by its makers
        trust_remote_code=False,
    )
    write_packed(model, Path(job["out"]))


def _main(job_file: Path) -> None:
    job = json.loads(job_file.read_text(encoding="utf-8"))
    try:
        pack(job)
    except Exception as error:
        told = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        (job_file.parent / "problem.txt").write_text(told[:300], encoding="utf-8")
        raise


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
