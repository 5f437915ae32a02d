"""Which product of the routed experts with their 4-bit weights is fastest, by tokens, both ways.

    python benchmarks/training/expert_products.py [--check]      # --check: small, in Triton's interpreter

Today's path (dequantize, then torch's grouped product) beside the candidates of `nf4_products.py`. Prints a line
`RESULT {json}`: microseconds by stack, way, tokens and candidate, with the relative error against fp32.
"""

import argparse
import json
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any, NamedTuple

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2])]
os.environ.setdefault("TRITON_CACHE_DIR", "/tmp/expert-products-triton")
if "--check" in sys.argv:
    os.environ["TRITON_INTERPRET"] = "1"

import nf4_products  # noqa: E402
import torch  # noqa: E402

SLOTS = 6
TOKENS = (512, 1024, 2048, 4096, 8192, 16384)
STACKS = {"gate_up": (3072, 2560), "down": (2560, 1536)}
WAYS = ("forward", "backward")
EXPERTS = 64
BUDGET_S = 140


class Tile(NamedTuple):
    """A candidate: its tile, and how it is compiled."""

    lookup: int
    swap: bool
    rows: int
    columns: int
    step: int
    warps: int
    stages: int

    @property
    def name(self) -> str:
        """Short."""
        kind = ("table", "prmt", "prmt32")[self.lookup] + ("-swap" if self.swap else "")
        return f"{kind} {self.rows}x{self.columns}x{self.step} w{self.warps} s{self.stages}"


SHAPES = [
    (128, 128, 64, 4, 3), (128, 128, 64, 8, 3), (128, 128, 128, 8, 3), (128, 256, 64, 8, 3), (64, 128, 64, 4, 4),
    (64, 128, 128, 4, 3), (64, 256, 64, 8, 3), (64, 256, 64, 4, 3),
]  # fmt: skip
FORWARD = [
    *(Tile(1, False, *shape) for shape in SHAPES),
    *(Tile(1, True, *shape) for shape in SHAPES),
    *(Tile(look, swap, *SHAPES[at]) for look, at, swap in product((0, 2), (0, 3, 4), (False, True))),
]
BACKWARD = [
    *(Tile(1, False, *shape) for shape in SHAPES if shape != (128, 128, 128, 8, 3)),
    Tile(1, False, 128, 256, 32, 8, 3),
    Tile(1, False, 64, 256, 128, 8, 2),
    *(Tile(look, False, *SHAPES[at]) for look, at in product((0, 2), (0, 3, 4))),
]


class Weights(NamedTuple):
    """A stack as bitsandbytes holds it, doubly quantized."""

    packed: torch.Tensor
    absmax: torch.Tensor
    code2: torch.Tensor
    absmax2: torch.Tensor
    offset: torch.Tensor
    code: torch.Tensor
    shape: tuple[int, int, int]


def random_weights(shape: tuple[int, int, int], device: str) -> Weights:
    """Random bytes and constants of about the size of a model's."""
    size, blocks = shape[0] * shape[1] * shape[2], shape[0] * shape[1] * shape[2] // 64
    return Weights(
        torch.randint(0, 256, (size // 2,), dtype=torch.uint8, device=device),
        torch.randint(0, 256, (blocks,), dtype=torch.uint8, device=device),
        torch.linspace(-1, 1, 256, device=device),
        torch.rand(-(-blocks // 256), device=device) * 0.01,
        torch.tensor(0.03, device=device),
        torch.tensor(nf4_products.NF4, device=device),
        shape,
    )


def dequantized(weights: Weights, expert: int) -> torch.Tensor:
    """An expert's [outputs, inputs] in fp32, by the formula."""
    _, n, k = weights.shape
    size = n * k
    packed = weights.packed[expert * size // 2 : (expert + 1) * size // 2]
    block = torch.arange(expert * size // 64, (expert + 1) * size // 64, device=packed.device)
    scale = weights.code2[weights.absmax[block].long()] * weights.absmax2[block // 256] + weights.offset
    codes = weights.code[torch.stack([packed >> 4, packed & 15], 1).flatten().long()]
    return (codes.view(-1, 64) * scale[:, None]).view(n, k)


def split_even_odd(rows: torch.Tensor, step: int) -> torch.Tensor:
    """Of each `step` columns the even ones first: what the gather of rows would write."""
    return rows.view(len(rows), -1, step // 2, 2).transpose(2, 3).reshape(rows.shape)


def arguments(tile: Tile, way: str, weights: Weights, rows: Any, ends: Any, out: Any) -> tuple[Any, list[Any], Any]:
    """The kernel, and what it is called with."""
    experts, n, k = weights.shape
    kernel = nf4_products.forward if way == "forward" else nf4_products.backward
    options = {"N": n, "K": k, "EXPERTS": experts, "LOOKUP": tile.lookup, "SWAP": tile.swap, "ROWS": tile.rows}
    options |= {"COLUMNS": tile.columns, "STEP": tile.step, "num_warps": tile.warps, "num_stages": tile.stages}
    return kernel, [rows, *weights[:6], ends, out], options


def run(tile: Tile, way: str, weights: Weights, rows: torch.Tensor, ends: torch.Tensor, out: torch.Tensor) -> None:
    """One launch; forward, `rows` as `split_even_odd` leaves them."""
    kernel, args, options = arguments(tile, way, weights, rows, ends, out)
    experts, tiles = weights.shape[0], len(rows) // tile.rows + weights.shape[0]
    kernel[(min(tiles, len(rows) + experts) * (out.shape[1] // tile.columns),)](*args, **options)


def compiled(job: tuple[Tile, str, str]) -> tuple[str, float, str]:
    """In a process of its own: into Triton's cache; (candidate, seconds, what went wrong)."""
    tile, way, stack = job
    start = time.perf_counter()
    try:
        weights = random_weights((1, 64, 64), "cuda")._replace(shape=(EXPERTS, *STACKS[stack]))
        rows = torch.empty(16, dtype=torch.bfloat16, device="cuda")
        ends = torch.empty(EXPERTS, dtype=torch.int32, device="cuda")
        kernel, args, options = arguments(tile, way, weights, rows, ends, torch.empty_like(rows))
        built = kernel.warmup(*args, grid=(1,), **options)
        _ = built.asm
        problem = ""
    except Exception as error:  # a tile that does not fit is a result
        problem = f"{type(error).__name__}: {str(error).splitlines()[0][:120] if str(error) else ''}"
    return f"{stack} {way} {tile.name}", time.perf_counter() - start, problem


def microseconds(call: Any, repeats: int = 12) -> float:
    """The median of one call, by events."""
    for _ in range(2):
        call()
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(2 * repeats)]
    for start, end in zip(marks[::2], marks[1::2], strict=True):
        start.record()
        call()
        end.record()
    torch.cuda.synchronize()
    return 1000 * median(start.elapsed_time(end) for start, end in zip(marks[::2], marks[1::2], strict=True))


def routed(tokens: int, experts: int, slots: int, device: str) -> torch.Tensor:
    """The row after each expert's last, of tokens that choose at random."""
    chosen = torch.rand(tokens, experts, device=device).topk(slots, dim=1).indices
    return torch.bincount(chosen.flatten(), minlength=experts).cumsum(0).to(torch.int32)


def error(way: str, weights: Weights, rows: torch.Tensor, ends: torch.Tensor, out: torch.Tensor) -> float:
    """The largest relative error over a few experts."""
    bounds, worst = [0, *ends.tolist()], 0.0
    for expert in {0, weights.shape[0] // 3, weights.shape[0] - 1}:
        own = slice(bounds[expert], bounds[expert + 1])
        weight = dequantized(weights, expert)
        want = rows[own].float() @ (weight.t() if way == "forward" else weight)
        worst = max(worst, float((out[own].float() - want).norm() / (want.norm() + 1e-9)))
    return worst


def measure(stack: str, way: str, tokens: int, weights: Weights, usable: set[str]) -> dict[str, Any]:
    """Microseconds and error of each candidate at one place."""
    from ernie_pipeline.models.grouped.dequantize import dequantize

    experts, n, k = weights.shape
    ends = routed(tokens, experts, SLOTS, "cuda")
    wide, narrow = (k, n) if way == "forward" else (n, k)
    rows = torch.randn(tokens * SLOTS, wide, dtype=torch.bfloat16, device="cuda")
    out = torch.full((len(rows), narrow), float("nan"), dtype=torch.bfloat16, device="cuda")
    full = torch.empty(experts, n, k, dtype=torch.bfloat16, device="cuda")
    state = SimpleNamespace(
        shape=torch.Size(weights.shape), absmax=weights.absmax, code=weights.code, blocksize=64, nested=True,
        offset=weights.offset, state2=SimpleNamespace(code=weights.code2, absmax=weights.absmax2, blocksize=256),
    )  # fmt: skip
    held = SimpleNamespace(quant_state=state, data=weights.packed)

    def multiply() -> torch.Tensor:
        return torch.nn.functional.grouped_mm(rows, full.transpose(1, 2) if way == "forward" else full, offs=ends)

    def both() -> None:
        dequantize(held, full)
        multiply()

    result: dict[str, Any] = {"dequantize": round(microseconds(lambda: dequantize(held, full)), 1)}
    result |= {"grouped_mm": round(microseconds(multiply), 1), "today": round(microseconds(both), 1)}
    result["today_error"] = error(way, weights, rows, ends, multiply())
    split = {step: split_even_odd(rows, step) if way == "forward" else rows for step in (32, 64, 128)}
    flops = 2 * len(rows) * n * k
    for tile in FORWARD if way == "forward" else BACKWARD:
        if f"{stack} {way} {tile.name}" not in usable:
            continue
        out.fill_(float("nan"))
        try:
            run(tile, way, weights, split[tile.step], ends, out)
            wrong = error(way, weights, rows, ends, out) + (0 if bool(out.isfinite().all()) else 9)
            us = microseconds(lambda t=tile: run(t, way, weights, split[t.step], ends, out))
        except Exception as problem:
            usable.discard(f"{stack} {way} {tile.name}")
            print("failed", stack, way, tile.name, str(problem)[:200], flush=True)
            continue
        result[tile.name] = [round(us, 1), round(flops / us / 1e6), round(n * k * experts * 0.516 / us / 1e3), wrong]
    return result


def on_the_card() -> None:
    """Compile everything in processes, then measure until the time is spent."""
    began = time.perf_counter()
    jobs = [(t, way, s) for way in WAYS for t in (FORWARD if way == "forward" else BACKWARD) for s in STACKS]
    with ProcessPoolExecutor(min(16, os.cpu_count() or 2), mp_context=get_context("spawn")) as pool:
        made = list(pool.map(compiled, jobs, chunksize=2))
    for name, seconds, problem in made:
        if problem or seconds > 20:
            print(f"compile {name}: {seconds:.1f} s {problem}", flush=True)
    usable = {name for name, _, problem in made if not problem}
    print(f"{len(usable)} of {len(jobs)} compiled after {time.perf_counter() - began:.0f} s", flush=True)
    found: dict[str, Any] = {}
    weights = {stack: random_weights((EXPERTS, *shape), "cuda") for stack, shape in STACKS.items()}
    for tokens in (1024, 512, 2048, 8192, 4096, 16384):
        for stack, way in product(STACKS, WAYS):
            if time.perf_counter() - began > BUDGET_S:
                continue
            place = found[f"{stack} {way} {tokens}"] = measure(stack, way, tokens, weights[stack], usable)
            tiles = {name: value for name, value in place.items() if isinstance(value, list)}
            best = sorted(tiles, key=lambda name: tiles[name][0])[:4]
            today = f"dequantize {place['dequantize']} + product {place['grouped_mm']} = {place['today']}"
            print(f"{stack} {way} {tokens}: {today} (error {place['today_error']:.1e})", flush=True)
            for name in best:
                print(f"    {name}: {tiles[name]}", flush=True)
    print("RESULT", json.dumps({"card": torch.cuda.get_device_name(), "us": found}), flush=True)


def check() -> None:
    """The exact candidate against the formula, on the CPU, in Triton's interpreter."""
    torch.manual_seed(0)
    weights = random_weights((4, 128, 128), "cpu")
    ends = torch.tensor([5, 5, 40, 52], dtype=torch.int32)
    for way, swap, step in product(WAYS, (False, True), (64, 128)):
        rows = torch.randn(52, 128)  # the interpreter's dot takes no bf16
        out = torch.full((52, 128), float("nan"))
        tile = Tile(0, swap, 16, 64, step, 4, 2)
        run(tile, way, weights, split_even_odd(rows, step) if way == "forward" else rows, ends, out)
        wrong = error(way, weights, rows, ends, out)
        print(way, tile.name, wrong)
        assert bool(out.isfinite().all()), "a value was not written"
        assert wrong < 1e-5, "the candidate does not compute the product"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    check() if parser.parse_args().check else on_the_card()
