"""The routed experts' products of one layer with 4-bit weights: read directly (`nf4_mm.py`), or dequantized first.

    python benchmarks/training/expert_products.py

64 experts, 6 a token, evenly chosen at random, an adapter of rank 16 on every target. Prints a line `RESULT {json}`:
microseconds by stack, way, tokens and tile, TFLOP/s, and the relative error against fp32. It is how `TILE` and
`MOST_ROWS` were chosen.
"""

import json
import os
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from multiprocessing import get_context
from statistics import median
from types import SimpleNamespace
from typing import Any

os.environ.setdefault("TRITON_CACHE_DIR", "/tmp/expert-products-triton")

import torch

from ernie_pipeline.models.grouped.dequantize import dequantize
from ernie_pipeline.models.grouped.grouped_mm import grouped_mm
from ernie_pipeline.models.grouped.nf4_kernels import NF4
from ernie_pipeline.models.grouped.nf4_mm import Tile, launch

EXPERTS, SLOTS = 64, 6
TOKENS = (1024, 512, 2048, 1536, 256, 3072)
STACKS = {"gate_up": (3072, 2560, 32), "down": (2560, 1536, 16)}
"""Outputs, inputs, and the ranks of the adapter's targets."""
BUDGET_S = 200
CANDIDATES = [
    Tile(*shape)
    for shape in (
        (3, 128, 64, 4, 3), (3, 128, 64, 4, 4), (3, 128, 64, 8, 3), (4, 128, 64, 8, 3), (2, 128, 64, 4, 3),
        (1, 128, 64, 4, 3), (2, 256, 64, 8, 3), (1, 256, 64, 4, 3),
    )
]  # fmt: skip


def random_weight(shape: tuple[int, int, int]) -> Any:
    """A stack as bitsandbytes holds it, doubly quantized, of random bytes and constants of about a model's size."""
    size = shape[0] * shape[1] * shape[2]
    blocks = size // 64
    outer = SimpleNamespace(
        code=torch.linspace(-1, 1, 256, device="cuda"), absmax=torch.rand(-(-blocks // 256), device="cuda") * 0.01,
        blocksize=256,
    )  # fmt: skip
    state = SimpleNamespace(
        shape=torch.Size(shape), absmax=torch.randint(0, 256, (blocks,), dtype=torch.uint8, device="cuda"),
        code=torch.tensor(NF4, device="cuda"), blocksize=64, nested=True, offset=torch.tensor(0.03, device="cuda"),
        state2=outer, quant_type="nf4", dtype=torch.bfloat16,
    )  # fmt: skip
    return SimpleNamespace(
        data=torch.randint(0, 256, (size // 2,), dtype=torch.uint8, device="cuda"), quant_state=state
    )


def compiled(job: tuple[Tile, bool, str]) -> tuple[str, float, str]:
    """In a process of its own: into Triton's cache; (candidate, seconds, what went wrong)."""
    tile, backward, stack = job
    outputs, inputs, rank = STACKS[stack]
    start, problem = time.perf_counter(), ""
    try:
        weight = random_weight((EXPERTS, outputs, inputs))
        rows = torch.zeros(16, (outputs if backward else inputs) + rank, dtype=torch.bfloat16, device="cuda")
        lora = torch.zeros(EXPERTS, *((rank, inputs) if backward else (outputs, rank)), dtype=rows.dtype, device="cuda")
        launch(rows[:0], weight, lora, torch.zeros(EXPERTS, dtype=torch.int32, device="cuda"), backward, tile)
        torch.cuda.synchronize()
    except Exception as error:  # a tile that does not fit is a result
        problem = f"{type(error).__name__}: {str(error)[:120]}"
    return f"{stack} {backward} {tuple(tile)}", time.perf_counter() - start, problem


def microseconds(call: Any, repeats: int = 12) -> float:
    """The median of one call, by events."""
    call(), call()
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(2 * repeats)]
    for start, end in zip(marks[::2], marks[1::2], strict=True):
        start.record()
        call()
        end.record()
    torch.cuda.synchronize()
    return 1000 * median(start.elapsed_time(end) for start, end in zip(marks[::2], marks[1::2], strict=True))


def measure(stack: str, backward: bool, tokens: int, weight: Any, usable: set[str]) -> dict[str, Any]:
    """Microseconds, TFLOP/s and error of each candidate at one place."""
    outputs, inputs, rank = STACKS[stack]
    depth, wide = (outputs, inputs) if backward else (inputs, outputs)
    chosen = torch.rand(tokens, EXPERTS, device="cuda").topk(SLOTS, dim=1).indices
    ends = torch.bincount(chosen.flatten(), minlength=EXPERTS).cumsum(0).to(torch.int32)
    rows = torch.randn(tokens * SLOTS, depth + rank, dtype=torch.bfloat16, device="cuda")
    values = torch.zeros(EXPERTS, outputs + rank, inputs + rank, dtype=torch.bfloat16, device="cuda")
    lora = values[:, outputs:, :inputs] if backward else values[:, :outputs, inputs:]
    lora.copy_(torch.randn_like(lora) * 0.01)
    whole = values[:, :, :inputs] if backward else values[:, :outputs].transpose(1, 2)
    lora = lora.contiguous()

    def first_dequantized() -> torch.Tensor:
        dequantize(weight, values[:, :outputs])
        return grouped_mm(rows, whole, ends)

    bounds, wanted = [0, *ends.tolist()], {}
    first_dequantized()
    for expert in (0, EXPERTS // 3, EXPERTS - 1):
        own = slice(bounds[expert], bounds[expert + 1])
        wanted[own] = rows[own].float() @ whole[expert].float()

    def error(out: torch.Tensor) -> float:
        return max(float((out[own].float() - want).norm() / want.norm()) for own, want in wanted.items())

    flops = 2 * len(rows) * (depth + rank) * wide
    result: dict[str, Any] = {"dequantized first": round(microseconds(first_dequantized), 1)}
    result |= {"kept dequantized": round(microseconds(lambda: grouped_mm(rows, whole, ends)), 1)}
    for tile in CANDIDATES:
        if f"{stack} {backward} {tuple(tile)}" in usable:
            try:
                wrong = error(launch(rows, weight, lora, ends, backward, tile))
                us = microseconds(lambda tile=tile: launch(rows, weight, lora, ends, backward, tile))
            except Exception as problem:
                usable.discard(f"{stack} {backward} {tuple(tile)}")
                print("failed", stack, backward, tile, str(problem)[:200], flush=True)
                continue
            result[str(tuple(tile))] = [round(us, 1), round(flops / us / 1e6), wrong]
    return result


def main() -> None:
    """Compile everything in processes, then measure until the time is spent."""
    began = time.perf_counter()
    jobs = list(product(CANDIDATES, (False, True), STACKS))
    with ProcessPoolExecutor(min(16, os.cpu_count() or 2), mp_context=get_context("spawn")) as pool:
        made = list(pool.map(compiled, jobs, chunksize=2))
    for name, seconds, problem in made:
        if problem:
            print(f"compile {name}: {seconds:.1f} s {problem}", flush=True)
    usable = {name for name, _, problem in made if not problem}
    print(f"{len(usable)} of {len(jobs)} compiled after {time.perf_counter() - began:.0f} s", flush=True)
    weights = {stack: random_weight((EXPERTS, *shape[:2])) for stack, shape in STACKS.items()}
    found: dict[str, Any] = {}
    for tokens, stack, backward in product(TOKENS, STACKS, (False, True)):
        if time.perf_counter() - began > BUDGET_S:
            break
        place = f"{stack} {'backward' if backward else 'forward'} {tokens}"
        own = found[place] = measure(stack, backward, tokens, weights[stack], usable)
        tiles = {name: value for name, value in own.items() if isinstance(value, list)}
        print(f"{place}: {own['dequantized first']} µs, kept {own['kept dequantized']}", flush=True)
        for name in sorted(tiles, key=lambda name: tiles[name][0])[:6]:
            print(f"    {name}: {tiles[name]}", flush=True)
    print("RESULT", json.dumps({"card": torch.cuda.get_device_name(), "us": found}), flush=True)


if __name__ == "__main__":
    main()
