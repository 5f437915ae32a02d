"""One step of decoding at ERNIE-4.5-21B-A3B's shapes, kernel by kernel, with random weights and no checkpoint.

    python benchmarks/evaluation/decode_step.py [--only attention experts router step check] [--rows 400 32]

Each kernel in several tiles, and the whole step with 28 layers that share one layer's weights (1.6 GB, which no cache
holds) beside the present path through the model's modules; all as replayed CUDA graphs. `check`: how far the logits of
three layers are from the same in fp32, this way and by the modules. The last lines are the fastest tiles.
"""

import argparse
import itertools
import json
import statistics
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch.nn import functional as F
from transformers import Ernie4_5_MoeConfig, Ernie4_5_MoeForCausalLM

from ernie_pipeline.models.generation import decode as present
from ernie_pipeline.models.generation import decode_ops as ops
from ernie_pipeline.models.generation.decode_ops import AttentionTiles, ExpertTiles
from ernie_pipeline.models.generation.decode_step import FusedStep, StepTiles
from ernie_pipeline.models.generation.fused import FusedExperts
from ernie_pipeline.models.generation.sampler import GREEDY, Sampler

HIDDEN, INNER, EXPERTS, SLOTS, KV, GROUP, WIDTH, LAYERS, VOCABULARY = 2560, 1536, 64, 6, 4, 5, 128, 28, 103_424
LENGTHS = {32: (128, 640, 2048), 128: (640, 2048), 256: (384,), 400: (128, 384, 640, 2048), 800: (384,)}
TILE_ROWS = {32: (16,), 128: (16, 32), 256: (32, 64), 400: (32, 64), 800: (64, 128)}
MODULES_AT = {32: 128, 128: 640}
"""The lengths at which the present path is measured too; 384 for other rows."""
SHARED_MEMORY = 227 * 1024
BEST: dict[str, Any] = {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=["check", "attention", "router", "experts", "step", "quantized"])
    parser.add_argument("--rows", nargs="+", type=int, default=[400, 32, 128, 256, 800])
    options = parser.parse_args()
    torch.manual_seed(0)
    print(torch.cuda.get_device_name(), torch.__version__, flush=True)
    parts = {
        "check": check,
        "attention": attention,
        "router": router,
        "experts": experts,
        "quantized": quantized,
        "step": step,
    }
    for name in options.only:
        begun = time.time()
        with torch.inference_mode():
            survive(name, lambda part=parts[name]: part(options.rows))
        torch.cuda.empty_cache()
        print(f"-- {name}: {time.time() - begun:.0f} s", flush=True)
    print("BEST " + json.dumps(BEST), flush=True)


def survive(what: str, run: Callable[[], Any], brief: bool = False) -> Any:
    """What `run` gives; None with its error printed if it fails."""
    try:
        return run()
    except Exception as error:
        print(f"FAILED {what}: {type(error).__name__} {str(error)[:300]}", flush=True)
        if not brief:
            traceback.print_exc()
        return None


def milliseconds(run: Callable[[], Any], repeat: int = 8) -> float:
    """Of one call, the median of five replays of `repeat` calls captured as one CUDA graph."""
    run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(repeat):
            run()
    graph.replay()
    times = []
    for _ in range(5):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end) / repeat)
    return statistics.median(times)


def error_of(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """The norm of the difference as a share of the wanted norm."""
    return float((found.float() - wanted.float()).norm() / wanted.float().norm())


def table(
    what: str, ways: dict[Any, Callable[[], Any]], wanted: torch.Tensor | None, show: int = 6
) -> dict[Any, float]:
    """Measure each way of one thing and print the fastest, with how far their results are from `wanted`."""
    with ThreadPoolExecutor(12) as pool:  # compiles; what fails here fails again below and is told of
        list(pool.map(lambda run: _quietly(run), ways.values()))
    torch.cuda.synchronize()
    times, errors = {}, {}
    for name, run in ways.items():
        if (found := survive(f"{what} {name}", run, brief=True)) is None:
            continue
        if isinstance(found, torch.Tensor) and wanted is not None:
            errors[name] = error_of(found, wanted)
        if (took := survive(f"{what} {name}", lambda run=run: milliseconds(run), brief=True)) is not None:
            times[name] = took
    for name in sorted(times, key=times.__getitem__)[:show]:
        error = f"error {errors[name]:.1e}" if name in errors else ""
        print(f"{what:24} {times[name]:8.4f} ms  {error}  {_short(name)}", flush=True)
    wrong = {_short(name): f"{error:.1e}" for name, error in errors.items() if not error < 0.02}
    if wrong:
        print(f"WRONG {what} {wrong}", flush=True)
    return {name: took for name, took in times.items() if _short(name) not in wrong}


def _quietly(run: Callable[[], Any]) -> None:
    try:
        torch.cuda.set_device(0)  # a thread's own
        with torch.inference_mode():
            run()
    except Exception:
        return


def _short(name: Any) -> str:
    return " ".join(map(str, name)) if isinstance(name, tuple) else str(name)


# The attention


def attention(all_rows: list[int]) -> None:
    for rows in all_rows:
        for length in LENGTHS.get(rows, (384,)):
            _attention(rows, length)


def _attention(rows: int, length: int) -> None:
    copies = max(1, min(8, 2**31 // (rows * length * KV * WIDTH * 4)))  # a small cache would stay in the L2
    caches = [[torch.randn(rows, KV, length, WIDTH, device="cuda").bfloat16() for _ in range(2)] for _ in range(copies)]
    positions = torch.randint(max(0, length - 128), length, (rows,), device="cuda")
    qkv = torch.randn(rows, (GROUP + 2) * KV * WIDTH, device="cuda").bfloat16()
    angles = torch.rand(rows, WIDTH // 2, device="cuda") * 6
    cos, sin, turn = angles.cos(), angles.sin(), itertools.cycle(caches)

    def ours(tiles: AttentionTiles) -> Callable[[], torch.Tensor]:
        return lambda: ops.attend(qkv, cos, sin, positions, *next(turn), tiles)

    ways: dict[Any, Callable[[], Any]] = {
        AttentionTiles(columns, warps, stages, pieces): ours(AttentionTiles(columns, warps, stages, pieces))
        for columns, warps, stages in [
            (32, 2, 3),
            (32, 4, 4),
            (64, 2, 2),
            (64, 4, 2),
            (64, 4, 3),
            (128, 4, 2),
            (128, 8, 2),
        ]
        for pieces in ((1, 2) if rows > 200 else (1, 4, 8))
    }
    keys, values = caches[0]
    mask = torch.zeros(rows, 1, 1, length, device="cuda", dtype=torch.bfloat16)
    q = qkv[:, : GROUP * KV * WIDTH].reshape(rows, GROUP * KV, 1, WIDTH)
    module = SimpleNamespace(is_causal=True, training=False, num_key_value_groups=GROUP)
    ways["torch, without rope and the new key"] = lambda: present._grouped_attention(module, q, *next(turn), mask)[0]
    wanted = _attended(qkv, cos, sin, positions, keys, values)
    found = ops.attend(qkv, cos, sin, positions, keys, values, AttentionTiles(64, 4, 2))
    print(f"attention {rows}x{length}: error {error_of(found, wanted):.1e}", flush=True)
    for pieces in (2, 4, 8):
        found = ops.attend(qkv, cos, sin, positions, keys, values, AttentionTiles(64, 4, 2, pieces))
        print(f"   in {pieces} pieces: error {error_of(found, wanted):.1e}", flush=True)
    _note("attention", rows, length, table(f"attention {rows}x{length}", ways, None))


def _attended(qkv: Any, cos: Any, sin: Any, positions: Any, keys: Any, values: Any) -> torch.Tensor:
    """The same in fp32, in torch's operations."""
    rows = len(qkv)
    q, k, v = qkv.float().split([GROUP * KV * WIDTH, KV * WIDTH, KV * WIDTH], dim=1)

    def rotated(x: torch.Tensor) -> torch.Tensor:
        even, odd = x.view(rows, -1, WIDTH // 2, 2).unbind(-1)
        c, s = cos[:, None], sin[:, None]
        return torch.stack((even * c - odd * s, odd * c + even * s), dim=-1).flatten(-2).bfloat16().float()

    keys, values = keys.float(), values.float()
    at = positions[:, None, None, None].expand(rows, KV, 1, WIDTH)
    keys.scatter_(2, at, rotated(k)[:, :, None])
    values.scatter_(2, at, v.view(rows, KV, 1, WIDTH))
    seen = torch.arange(keys.shape[2], device="cuda") <= positions[:, None]
    out = F.scaled_dot_product_attention(rotated(q).view(rows, KV, GROUP, WIDTH), keys, values, seen[:, None, None])
    return out.reshape(rows, -1)


# The router and the experts


def _layer_model(layers: int = 1, vocabulary: int = 512) -> Any:
    """A model of `layers` with random weights; one is an MoE layer, of several the first is dense."""
    config = Ernie4_5_MoeConfig(
        num_hidden_layers=layers,
        moe_layer_start_index=min(1, layers - 1),
        moe_layer_end_index=layers - 1,
        vocab_size=vocabulary,
    )
    with torch.device("cuda"):
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.bfloat16)
        model = Ernie4_5_MoeForCausalLM(config)
        torch.set_default_dtype(before)
    for layer in model.model.layers:
        if hasattr(layer.mlp, "experts"):
            old = layer.mlp.experts
            for weight in (old.gate_up_proj, old.down_proj):
                torch.nn.init.normal_(weight, std=0.02)
            torch.nn.init.normal_(layer.mlp.gate.weight, std=0.02)
            torch.nn.init.normal_(layer.mlp.gate.moe_statics.e_score_correction_bias, std=0.002)
            layer.mlp.experts = FusedExperts(old.gate_up_proj.data, old.down_proj.data, old.act_fn)
    return model.requires_grad_(False).eval()


def _routed(hidden: torch.Tensor, gate: Any, precision: str = "tf32x3") -> ops.Routed:
    counts = torch.zeros(EXPERTS, dtype=torch.int32, device="cuda")
    bias = gate.moe_statics.e_score_correction_bias.view(-1)
    return ops.route(hidden, gate.weight.float(), bias, SLOTS, gate.norm_min, counts, precision)


def router(all_rows: list[int]) -> None:
    gate = _layer_model().model.layers[0].mlp.gate
    print("router's dtype", gate.weight.dtype, gate.moe_statics.e_score_correction_bias.dtype, flush=True)
    for rows in all_rows:
        _router(gate, torch.randn(rows, HIDDEN, device="cuda").bfloat16())


def _router(gate: Any, hidden: torch.Tensor) -> None:
    _, weights, chosen = gate(hidden)
    for precision in ("tf32x3", "ieee"):
        routed = survive("router", lambda precision=precision: _routed(hidden, gate, precision))
        if routed is None:
            continue
        same = (routed.experts.sort(dim=1).values == chosen.sort(dim=1).values).all(dim=1).float().mean()
        counted = torch.equal(routed.counts.long(), chosen.flatten().bincount(minlength=EXPERTS))
        print(
            f"router {len(hidden)} {precision}: rows with the same experts {same:.4f}, counted {counted}, "
            f"weights {error_of(routed.weights.sort().values, weights.sort().values):.1e}"
        )
    ways = {
        "tf32x3": lambda: _routed(hidden, gate).weights,
        "ieee": lambda: _routed(hidden, gate, "ieee").weights,
        "module": lambda: gate(hidden)[1],
    }
    table(f"router {len(hidden)}", ways, None)


def expert_tiles(rows: tuple[int, ...], gate_up: bool) -> Iterator[ExpertTiles]:
    """Tiles to try, of those that fit into shared memory."""
    shapes = [(64, 64, 4, 4), (64, 64, 4, 3), (128, 64, 8, 3), (128, 64, 8, 4), (128, 64, 4, 3), (64, 128, 4, 3)]
    shapes += [(128, 128, 8, 2)] if gate_up else [(256, 64, 8, 3), (128, 128, 8, 3), (128, 64, 4, 5)]
    for height, (columns, depth, warps, stages), swap, tma in itertools.product(
        rows, shapes, (False, True), (False, True)
    ):
        if (swap and height > 64) or (not swap and height < 64 and (tma or columns > 64)):
            continue
        if 2 * stages * depth * (height + columns * (2 if gate_up else 1)) + 1024 < SHARED_MEMORY:
            yield ExpertTiles(height, columns, depth, warps, stages, swap, tma)


def experts(all_rows: list[int]) -> None:
    mlp = _layer_model().model.layers[0].mlp
    for rows in all_rows:
        _both_products(mlp, torch.randn(rows, HIDDEN, device="cuda").bfloat16())


def _both_products(mlp: Any, hidden: torch.Tensor) -> None:
    rows, weights = len(hidden), (mlp.experts.gate_up_proj.data, mlp.experts.down_proj.data)
    routed = _routed(hidden, mlp.gate)
    print(f"experts {rows}: rows of an expert {sorted(routed.counts.tolist())[::9]}", flush=True)
    active, out = _pairs_in_fp32(hidden, routed, *weights)
    for name, source, weight, wanted, gate_up in (
        ("gate_up", hidden, weights[0], active, True),
        ("down", active.bfloat16(), weights[1], out, False),
    ):
        tiles = expert_tiles(TILE_ROWS.get(rows, (64,)), gate_up)
        ways: dict[Any, Callable[[], Any]] = {
            each: partial(ops.expert_product, source, weight, routed, each, gate_up=gate_up) for each in tiles
        }
        _note(name, rows, 0, table(f"{name} {rows}", ways, wanted, show=10))
    residual, pairs, many = hidden.clone(), out.bfloat16(), weights[0].view(-1, HIDDEN)
    down = weights[1].view(-1, 2 * INNER)[:HIDDEN]
    others: dict[Any, Callable[[], Any]] = {
        "routed experts by their module": lambda: mlp.experts(hidden, routed.experts, routed.weights),
        "shared experts, ours": lambda: F.linear(ops.gated(F.linear(hidden, many[: 4 * INNER])), down),
        "shared experts by their module": lambda: mlp.shared_experts(hidden),
        "qkv": lambda: F.linear(hidden, many[: (GROUP + 2) * KV * WIDTH]),
        "output": lambda: F.linear(hidden, many[:HIDDEN]),
        "add_norm": lambda: ops.add_norm(residual, hidden[0], 1e-5, hidden),
        "add_norm of pairs": lambda: ops.add_norm(residual, hidden[0], 1e-5, hidden, pairs, routed.weights),
    }
    table(f"others {rows}", others, None, show=9)


def quantized(all_rows: list[int]) -> None:
    """The experts' products from weights in 4 bits, dequantized on the way."""
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    mlp = _layer_model().model.layers[0].mlp
    stacks = []
    for weight in (mlp.experts.gate_up_proj.data, mlp.experts.down_proj.data):
        packed, state = quantize_4bit(weight, blocksize=64, compress_statistics=True, quant_type="nf4")
        weight.copy_(dequantize_4bit(packed, state).view(weight.shape))
        state.shape = weight.shape
        stacks.append((packed.view(-1), state))
    weights = mlp.experts.gate_up_proj.data, mlp.experts.down_proj.data
    for rows in all_rows:
        hidden = torch.randn(rows, HIDDEN, device="cuda").bfloat16()
        routed = _routed(hidden, mlp.gate)
        active, out = _pairs_in_fp32(hidden, routed, *weights)
        for name, source, (packed, state), want, gate_up in (
            ("4-bit gate_up", hidden, stacks[0], _even_first(active), True),
            ("4-bit down", active.bfloat16(), stacks[1], out, False),
        ):
            own, ways = _even_first(source), {}
            for height in TILE_ROWS.get(rows, (64,)):
                for columns, warps, stages in (
                    (64, 4, 3),
                    (64, 4, 4),
                    (64, 8, 3),
                    (128, 8, 3),
                    (128, 4, 3),
                    (128, 8, 4),
                ):
                    tiles = ExpertTiles(height, columns, 64, warps, stages, swap=True)
                    ways[tiles] = _quantized_run(own, packed, state, routed, tiles, gate_up)
            _note(name, rows, 0, table(f"{name} {rows}", ways, want, show=8))


def _quantized_run(
    source: Any, packed: Any, state: Any, routed: Any, tiles: ExpertTiles, gate_up: bool
) -> Callable[[], Any]:
    return lambda: ops.quantized_product(source, packed, state, routed, tiles, gate_up=gate_up)


def _even_first(rows: torch.Tensor) -> torch.Tensor:
    return torch.cat([rows[:, ::2], rows[:, 1::2]], dim=1).contiguous()


def _pairs_in_fp32(hidden: Any, routed: Any, gate_up: Any, down: Any) -> tuple[torch.Tensor, torch.Tensor]:
    active = torch.empty(len(hidden) * SLOTS, INNER, device="cuda")
    out = torch.empty(len(hidden) * SLOTS, HIDDEN, device="cuda")
    chosen = routed.experts.flatten()
    for expert in range(EXPERTS):
        pairs = (chosen == expert).nonzero()[:, 0]
        gate, up = (hidden[pairs // SLOTS].float() @ gate_up[expert].float().T).chunk(2, dim=1)
        active[pairs] = F.silu(gate) * up
        out[pairs] = active[pairs].bfloat16().float() @ down[expert].float().T
    return active, out


# The whole step


def step(all_rows: list[int]) -> None:
    model = _layer_model(vocabulary=VOCABULARY)
    fused = {True: FusedStep(model), False: FusedStep(model, overlap=False)}
    for each in fused.values():
        each.layers = each.layers * LAYERS
    model.model.layers = torch.nn.ModuleList([model.model.layers[0]] * LAYERS)
    model.config.num_hidden_layers = LAYERS
    model.set_attn_implementation(present.ATTENTION)
    for rows in all_rows:
        for length in LENGTHS.get(rows, (384,)):
            survive(f"step {rows}x{length}", lambda rows=rows, length=length: _step(model, fused, rows, length))


def _step(model: Any, fused: dict[bool, FusedStep], rows: int, length: int) -> None:
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
    draw = GREEDY.draw
    logits = by_modules()
    ways: dict[str, Callable[[], Any]] = {
        "as tiles_for says": lambda: draw(fused[True].logits(tokens, positions, keys, values), tokens, number)[0],
        "without overlap": lambda: draw(fused[False].logits(tokens, positions, keys, values), tokens, number)[0],
        "only head and draw": lambda: draw(F.linear(logits[:, :HIDDEN], model.lm_head.weight), tokens, number)[0],
    }
    if rows == max(TILE_ROWS) or rows == 400:
        for sampler in (Sampler(1.0), Sampler(1.0, 0.95)):
            ways[f"only head and draw, {sampler}"] = partial(
                lambda own: own.draw(F.linear(logits[:, :HIDDEN], model.lm_head.weight), tokens, number)[0], sampler
            )
    if length == MODULES_AT.get(rows, 384):
        ways["by modules"] = lambda: draw(by_modules(), tokens, number)[0]
    if tiles is not None:
        best = FusedStep.__new__(FusedStep)
        best.__dict__ = fused[True].__dict__ | {"tiles": tiles}
        ways["best tiles"] = lambda: draw(best.logits(tokens, positions, keys, values), tokens, number)[0]
    times: dict[str, float] = {}
    for name, run in ways.items():
        took = survive(f"step {rows}x{length} {name}", lambda run=run: milliseconds(run, repeat=1))
        if took is not None:
            times[name] = took
            print(f"step {rows}x{length}: {took:7.2f} ms, {rows / took * 1000:8.0f} tokens/s  {name}", flush=True)
    if (rows, length) == (400, 384):
        run = ways["as tiles_for says"]
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
            run()
        print(profiler.key_averages().table(sort_by="self_device_time_total", row_limit=18, max_name_column_width=60))
    BEST[f"step {rows}x{length}"] = {name: round(took, 3) for name, took in times.items()}


def _note(what: str, rows: int, length: int, times: dict[Any, float]) -> None:
    own = {name: took for name, took in times.items() if isinstance(name, tuple)}
    if own:
        best = min(own, key=own.__getitem__)
        BEST[f"{what} {rows}x{length}"] = [*best, round(own[best], 4)]


def _best_tiles(rows: int, length: int) -> StepTiles | None:
    found = [BEST.get(f"{what} {rows}x{at}") for what, at in (("attention", length), ("gate_up", 0), ("down", 0))]
    if None in found:
        return None
    attended, gate_up, down = (each[:-1] for each in found)  # type: ignore[index]
    return StepTiles(AttentionTiles(*attended), ExpertTiles(*gate_up), ExpertTiles(*down))


# Whether it is right


def check(_: list[int]) -> None:
    """Three layers' logits, after a cache of random keys and values: this way, by the modules, and in fp32."""
    model = _layer_model(layers=3)
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
    ours = {}
    for overlap in (True, False):
        keys, values = ([each.clone() for each in cache] for cache in caches)
        found = survive(
            "check", lambda o=overlap, k=keys, v=values: FusedStep(model, overlap=o).logits(tokens, positions, k, v)
        )
        if found is not None:
            ours[overlap] = found
    again = by_modules(model, torch.bfloat16)
    exact = by_modules(_in_fp32(model), torch.float32)
    print(f"check: modules {error_of(modules, exact):.2e}, again the same {torch.equal(modules, again)}")
    for overlap, found in ours.items():
        same, theirs = ((each.argmax(1) == exact.argmax(1)).float().mean() for each in (found, modules))
        print(
            f"check: ours (overlap {overlap}) {error_of(found, exact):.2e}, from the modules "
            f"{error_of(found, modules):.2e}, same token as in fp32 {same:.3f} (modules {theirs:.3f})",
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
