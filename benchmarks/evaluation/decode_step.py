"""One step of decoding at ERNIE-4.5-21B-A3B's shapes, kernel by kernel, with random weights and no checkpoint.

    python benchmarks/evaluation/decode_step.py [--only check attention experts quantized draw step] [--rows 400 32]

Each kernel in several tiles, and the whole step with 28 layers that share one layer's weights (1.6 GB, which no cache
holds) beside the step by the model's modules; all as replayed CUDA graphs. `check`: how far the logits of three layers
are from the same in fp32, this way and by the modules. The last line has the fastest tiles and all steps.
"""

import argparse
import json
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from decode_tiles import (
    BEST,
    KV,
    LAYERS,
    LENGTHS,
    VOCABULARY,
    WIDTH,
    attention,
    draw,
    experts,
    layer_model,
    milliseconds,
    quantized,
    survive,
)
from torch.nn import functional as F

from ernie_pipeline.models.generation import decode as present
from ernie_pipeline.models.generation.decode_ops import AttentionTiles, ExpertTiles
from ernie_pipeline.models.generation.decode_step import FusedStep, StepTiles
from ernie_pipeline.models.generation.sampler import GREEDY

MODULES_AT = {32: 128, 128: 640}
"""The lengths at which the step by modules is measured too; 384 for other rows."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = {each.__name__: each for each in (check, attention, experts, quantized, draw, step)}
    parser.add_argument("--only", nargs="+", choices=parts, default=list(parts))
    parser.add_argument("--rows", nargs="+", type=int, default=[400, 32, 128, 256, 800])
    options = parser.parse_args()
    torch.manual_seed(0)
    print(torch.cuda.get_device_name(), torch.__version__, flush=True)
    for name in options.only:
        begun = time.time()
        with torch.inference_mode():
            survive(name, lambda part=parts[name]: part(options.rows))
        torch.cuda.empty_cache()
        print(f"-- {name}: {time.time() - begun:.0f} s", flush=True)
    print("BEST " + json.dumps(BEST), flush=True)


def step(all_rows: list[int]) -> None:
    model = layer_model(vocabulary=VOCABULARY)
    fused = FusedStep(model)
    fused.layers = fused.layers * LAYERS
    model.model.layers = torch.nn.ModuleList([model.model.layers[0]] * LAYERS)
    model.config.num_hidden_layers = LAYERS
    model.set_attn_implementation(present.ATTENTION)
    for rows in all_rows:
        for length in LENGTHS.get(rows, (384,)):
            survive(f"step {rows}x{length}", lambda rows=rows, length=length: _step(model, fused, rows, length))


def _step(model: Any, fused: FusedStep, rows: int, length: int) -> None:
    keys, values = ([torch.randn(rows, KV, length, WIDTH, device="cuda").bfloat16()] * LAYERS for _ in range(2))
    positions = torch.randint(max(0, length - 128), length, (rows,), device="cuda")
    tokens = torch.randint(VOCABULARY, (rows,), device="cuda")
    state = SimpleNamespace(positions=positions, keys=keys, values=values)
    number = torch.zeros(1, dtype=torch.long, device="cuda")
    seen = torch.arange(length, device="cuda") <= positions[:, None]
    mask = torch.zeros(seen.shape, dtype=torch.bfloat16, device="cuda").masked_fill_(~seen, -torch.inf)

    def by_modules() -> torch.Tensor:
        rows_of = present._Rows(state, rows, length)
        output = model(
            input_ids=tokens[:, None],
            position_ids=positions[:, None],
            attention_mask=mask[:, None, None],
            past_key_values=rows_of,
            use_cache=True,
        )
        return output.logits[:, -1]

    tiles = _best_tiles(rows, length)
    ways: dict[str, Callable[[], Any]] = {
        "as tiles_for says": lambda: GREEDY.draw(fused.logits(tokens, positions, keys, values), tokens, number)[0],
    }
    if length == MODULES_AT.get(rows, 384):
        ways["by modules"] = lambda: GREEDY.draw(by_modules(), tokens, number)[0]
    if tiles is not None:
        best = FusedStep.__new__(FusedStep)
        best.__dict__ = fused.__dict__ | {"tiles": tiles}
        ways["best tiles"] = lambda: GREEDY.draw(best.logits(tokens, positions, keys, values), tokens, number)[0]
    times: dict[str, float] = {}
    for name, run in ways.items():
        took = survive(f"step {rows}x{length} {name}", lambda run=run: milliseconds(run, repeat=1))
        if took is not None:
            times[name] = took
            print(f"step {rows}x{length}: {took:7.2f} ms, {rows / took * 1000:8.0f} tokens/s  {name}", flush=True)
    BEST[f"step {rows}x{length}"] = {name: round(took, 3) for name, took in times.items()}


def _best_tiles(rows: int, length: int) -> StepTiles | None:
    found = [BEST.get(f"{what} {rows}x{at}") for what, at in (("attention", length), ("gate_up", 0), ("down", 0))]
    if None in found:
        return None
    attended, gate_up, down = (each[:-1] for each in found)  # type: ignore[index]
    return StepTiles(AttentionTiles(*attended), ExpertTiles(*gate_up), ExpertTiles(*down))


# Whether it is right


def error_of(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """The norm of the difference as a share of the wanted norm."""
    return float((found.float() - wanted.float()).norm() / wanted.float().norm())


def check(_: list[int]) -> None:
    """Three layers' logits, after a cache of random keys and values: this way, by the modules, and in fp32."""
    model = layer_model(layers=3)
    rows, length = 96, 192
    caches = [[torch.randn(rows, KV, length, WIDTH, device="cuda").bfloat16() for _ in range(3)] for _ in range(2)]
    positions = torch.randint(0, length, (rows,), device="cuda")
    tokens = torch.randint(512, (rows,), device="cuda")
    mask = torch.zeros(rows, length, device="cuda")
    mask.masked_fill_(torch.arange(length, device="cuda") > positions[:, None], -torch.inf)

    def by_modules(own: Any, dtype: torch.dtype) -> torch.Tensor:
        keys, values = ([each.to(dtype, copy=True) for each in cache] for cache in caches)
        state = SimpleNamespace(positions=positions, keys=keys, values=values)
        return own(
            input_ids=tokens[:, None],
            position_ids=positions[:, None],
            attention_mask=mask.to(dtype)[:, None, None],
            past_key_values=present._Rows(state, rows, length),
            use_cache=True,
        ).logits[:, -1]

    model.set_attn_implementation(present.ATTENTION)
    modules = by_modules(model, torch.bfloat16)
    keys, values = ([each.clone() for each in cache] for cache in caches)
    found = FusedStep(model).logits(tokens, positions, keys, values)
    again = by_modules(model, torch.bfloat16)
    exact = by_modules(_in_fp32(model), torch.float32)
    print(f"check: modules {error_of(modules, exact):.2e}, again the same {torch.equal(modules, again)}")
    same, theirs = ((each.argmax(1) == exact.argmax(1)).float().mean() for each in (found, modules))
    print(
        f"check: ours {error_of(found, exact):.2e}, from the modules {error_of(found, modules):.2e}, "
        f"same token as in fp32 {same:.3f} (modules {theirs:.3f})",
        flush=True,
    )


def _in_fp32(model: Any) -> Any:
    """A copy in fp32 whose experts are taken one by one, as torch's grouped product takes bfloat16 only."""
    import copy

    exact = copy.deepcopy(model).float()
    for layer in exact.model.layers:
        if hasattr(layer.mlp, "experts"):
            fused = layer.mlp.experts
            layer.mlp.experts = _OneByOne(fused.gate_up_proj, fused.down_proj)
    return exact


class _OneByOne(torch.nn.Module):
    def __init__(self, gate_up: torch.Tensor, down: torch.Tensor):
        super().__init__()
        self.gate_up, self.down = gate_up, down

    def forward(self, hidden: torch.Tensor, chosen: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        out = torch.zeros_like(hidden)
        for expert in range(len(self.gate_up)):
            token, slot = (chosen == expert).nonzero(as_tuple=True)
            gate, up = (hidden[token] @ self.gate_up[expert].T).chunk(2, dim=1)
            out.index_add_(0, token, (F.silu(gate) * up) @ self.down[expert].T * weights[token, slot, None])
        return out


if __name__ == "__main__":
    main()
