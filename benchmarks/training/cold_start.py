"""From a checkpoint in the page cache to its quantized base on disk, and to a model on the GPU: one RESULT line.

    python benchmarks/training/cold_start.py CHECKPOINT [--home FOLDER]

CHECKPOINT is a folder with ERNIE-4.5's shapes; random weights do (benchmarks/full_size/make_checkpoint.py).
Phases: `read_s` from the page cache to the GPU, `quantize_s` there and back to the CPU's memory, `write_s` what of the
writing was waited for, `seal_s` hashing what was written. Reading and quantizing end with a synchronised copy each.
"""

import argparse
import json
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from measured import add_commit, measured

from ernie_pipeline.models import backend_named
from ernie_pipeline.models.checkpoint.config import causal_lm_config
from ernie_pipeline.models.checkpoint.version import checkpoint_version
from ernie_pipeline.models.grouped import quantize_checkpoint as quantizing
from ernie_pipeline.models.grouped import quantized_base as bases_of
from ernie_pipeline.models.spec import BaseCheckpoint, ModelSpec
from ernie_pipeline.recipe.sections import Quantization
from ernie_pipeline.store.hashing.hash_cache import remembered_sha256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    home = Path(tempfile.gettempdir()) / "ernie-benchmark"
    parser.add_argument("--home", type=Path, default=home, help="a pipeline's home, for its quantized base")
    add_commit(parser)
    asked = parser.parse_args()
    checkpoint, bases = str(asked.checkpoint.resolve()), asked.home / "store" / ".bases"
    version = checkpoint_version(asked.checkpoint, remembered_sha256)  # which reads it into the page cache
    shutil.rmtree(bases, ignore_errors=True)
    base = BaseCheckpoint(name=checkpoint, checkpoint=checkpoint, version=version)
    spec = ModelSpec(backend="grouped", base=base, quantization=Quantization(), quantized_bases=bases)
    torch.zeros(1, device="cuda")
    phases = time_phases()
    start = time.time()
    folder = bases_of.quantized_base(
        base, causal_lm_config(checkpoint, None), spec.quantization.model_dump(), bases, "cuda"
    )
    quantized = time.time() - start
    peak = torch.cuda.max_memory_allocated() / 2**30
    start = time.time()
    backend_named("grouped").load(spec, "cuda")
    torch.cuda.synchronize()
    result = {
        **measured(parser, asked),
        "card": torch.cuda.get_device_name(),
        "layers": causal_lm_config(checkpoint, None).num_hidden_layers,
        "quantized_s": round(quantized, 1),
        "read_s": round(phases["read"], 1),
        "quantize_s": round(phases["hold"], 1),
        "write_s": round(phases["all"] - phases["read"] - phases["hold"], 1),
        "seal_s": round(quantized - phases["all"], 1),
        "gb_per_s": round(
            sum(file.stat().st_size for file in asked.checkpoint.glob("*.safetensors")) / quantized / 1e9, 2
        ),
        "quantizing_peak_gib": round(peak, 2),
        "quantized_gib": round(sum(file.stat().st_size for file in folder.iterdir()) / 2**30, 2),
        "load_s": round(time.time() - start, 1),
        "loaded_gib": round(torch.cuda.memory_allocated() / 2**30, 2),
    }
    print("RESULT " + json.dumps(result), flush=True)


def time_phases() -> dict[str, float]:
    """The seconds that the parts of quantizing take from now on: all of it, reading, and holding in 4 bits."""
    seconds: dict[str, float] = defaultdict(float)

    def timed(phase: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any) -> Any:
            start = time.perf_counter()
            try:
                return work(*given)
            finally:
                seconds[phase] += time.perf_counter() - start

        return call

    quantizing._Checkpoint.read = timed("read", quantizing._Checkpoint.read)  # type: ignore[method-assign]
    quantizing._held = timed("hold", quantizing._held)
    bases_of.quantize_checkpoint = timed("all", quantizing.quantize_checkpoint)  # type: ignore[attr-defined]
    return seconds


if __name__ == "__main__":
    main()
