"""Where the time of a forward and backward pass goes, kernel by kernel, by torch's profiler.

    python benchmarks/training/profile_pass.py CHECKPOINT [--documents 64] [--tokens 128] [--spare-gib 0]

CHECKPOINT as in whole.py, whose quantized base is taken from `--home`. The documents have random tokens,
`--tokens` each.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from ernie_pipeline.models.checkpoint.version import checkpoint_version
from ernie_pipeline.models.documents import document
from ernie_pipeline.models.grouped.backend import GroupedBackend
from ernie_pipeline.models.grouped.flat_parameters import FlatParameters
from ernie_pipeline.models.grouped.padding_free import keep_dequantized, padding_free_loss
from ernie_pipeline.models.micro_batches.layout import concatenate
from ernie_pipeline.models.spec import BaseCheckpoint, ModelSpec
from ernie_pipeline.recipe.sections import Lora, Quantization
from ernie_pipeline.store.hashing.hash_cache import remembered_sha256

PASSES = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--documents", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--spare-gib", type=float, default=0, help="memory for layers whose experts stay dequantized")
    parser.add_argument("--home", type=Path, default=Path(tempfile.gettempdir()) / "ernie-benchmark")
    asked = parser.parse_args()
    model = _model(asked.checkpoint.resolve(), asked.home)
    keep_dequantized(model.get_base_model(), int(asked.spare_gib * 2**30), asked.documents * asked.tokens)
    flat = FlatParameters([parameter for parameter in model.parameters() if parameter.requires_grad])
    inputs = _inputs(asked.documents, asked.tokens)

    def one_pass() -> None:
        flat.clear_gradients()
        padding_free_loss(model.get_base_model(), inputs, asked.tokens).backward()  # type: ignore[no-untyped-call]

    for _ in range(2):
        one_pass()
    torch.cuda.reset_peak_memory_stats()
    standing = torch.cuda.memory_allocated()
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(PASSES):
        one_pass()
    torch.cuda.synchronize()
    each, peak = 1000 * (time.perf_counter() - start) / PASSES, torch.cuda.max_memory_allocated()
    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        one_pass()
        torch.cuda.synchronize()
    print(profiled.key_averages().table(sort_by="self_device_time_total", row_limit=60, max_name_column_width=150))
    tokens = asked.documents * asked.tokens
    print(
        f"{tokens} tokens in {each:.1f} ms, {1000 * tokens / each:.0f} tokens/s without the optimizer; "
        f"{standing / 2**30:.1f} GiB stand, {peak / 2**30:.1f} at the peak, on {torch.cuda.get_device_name()}"
    )


def _model(checkpoint: Path, home: Path) -> Any:
    version = checkpoint_version(checkpoint, remembered_sha256)
    spec = ModelSpec(
        backend="grouped",
        base=BaseCheckpoint(name=str(checkpoint), checkpoint=str(checkpoint), version=version),
        quantization=Quantization(),
        quantized_bases=home / "store" / ".bases",
    )
    model = GroupedBackend().load(spec, "cuda")
    model.add_adapter(Lora(), seed=0)
    return model.module.train()


def _inputs(documents: int, tokens: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    ids = [torch.randint(4, 100_000, (tokens,), generator=generator).tolist() for _ in range(documents)]
    batch = concatenate([document(own) for own in ids], 0)
    return {name: value.cuda() for name, value in batch.items()}


if __name__ == "__main__":
    main()
