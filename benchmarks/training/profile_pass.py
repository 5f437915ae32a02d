"""Where the time of a forward and backward pass goes, kernel by kernel, by torch's profiler.

    python benchmarks/training/profile_pass.py CHECKPOINT [--documents 64] [--tokens 128] [--kept-layers 0]

CHECKPOINT as in whole.py, whose packed base is taken from `--home`. The documents have random tokens, `--tokens` each.
"""

import argparse
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from ernie_pipeline.engines import unsloth_engine
from ernie_pipeline.engines.checkpoint import checkpoint_version
from ernie_pipeline.engines.grouped.end_to_end import end_to_end_loss, keep_unpacked
from ernie_pipeline.hash_cache import remembered_sha256
from ernie_pipeline.recipe import Lora, Quantization
from ernie_pipeline.training.batches import Document, lay_end_to_end
from ernie_pipeline.training.flat import FlatParameters

PASSES = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--documents", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--kept-layers", type=int, default=0, help="layers whose experts stay unpacked")
    parser.add_argument("--home", type=Path, default=Path(tempfile.gettempdir()) / "ernie-benchmark")
    asked = parser.parse_args()
    model = _model(asked.checkpoint.resolve(), asked.home)
    keep_unpacked(model.get_base_model(), int(asked.kept_layers * 1.55 * 2**30))
    flat = FlatParameters([parameter for parameter in model.parameters() if parameter.requires_grad])
    inputs = _inputs(asked.documents, asked.tokens)

    def one_pass() -> None:
        flat.clear_gradients()
        end_to_end_loss(model.get_base_model(), inputs, asked.tokens).backward()  # type: ignore[no-untyped-call]

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
    _tell(profiled)
    tokens = asked.documents * asked.tokens
    print(
        f"{tokens} tokens in {each:.1f} ms, {1000 * tokens / each:.0f} tokens/s without the optimizer; "
        f"{standing / 2**30:.1f} GiB stand, {peak / 2**30:.1f} at the peak, on {torch.cuda.get_device_name()}"
    )


def _model(checkpoint: Path, home: Path) -> Any:
    version = checkpoint_version(checkpoint, remembered_sha256)
    base = {"name": str(checkpoint), "checkpoint": str(checkpoint), "revision": None, "version": version}
    quantization, bases = Quantization().model_dump(mode="json"), str(home / "store" / ".bases")
    job = {"base": base, "quantization": quantization, "gpu": {"bases": bases}}
    return unsloth_engine.add_adapter(unsloth_engine.base_of(job, "cuda"), Lora().model_dump(mode="json"), 0).train()


def _inputs(documents: int, tokens: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    ids = [torch.randint(4, 100_000, (tokens,), generator=generator) for _ in range(documents)]
    batch = lay_end_to_end([Document(own, own.clone()) for own in ids], 0)
    return {name: value.cuda() for name, value in batch.items()}


def _tell(profiled: Any) -> None:
    kernels: dict[str, list[float]] = defaultdict(list)
    for event in profiled.events():
        if str(event.device_type).endswith("CUDA"):
            kernels[event.name].append(event.device_time / 1000)
    print("      ms  calls  kernel")
    for name, times in sorted(kernels.items(), key=lambda item: -sum(item[1])):
        print(f"{sum(times):8.2f} {len(times):6}  {name[:150]}")
    print(f"{sum(map(sum, kernels.values())):8.2f} {sum(map(len, kernels.values())):6}  all")


if __name__ == "__main__":
    main()
