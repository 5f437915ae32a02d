"""The parts of a step of decoding, for `decode_step.py`: shapes, how a time is measured, and each kernel's tiles."""

import itertools
import statistics
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
from ernie_pipeline.models.generation.decode_step import tiles_for
from ernie_pipeline.models.generation.fused import FusedExperts
from ernie_pipeline.models.generation.nucleus import nucleus
from ernie_pipeline.models.generation.quantized_experts import (
    even_first,
    pairs_of,
    quantized_experts,
    quantized_product,
)
from ernie_pipeline.models.generation.sampler import GREEDY, Sampler
from ernie_pipeline.models.grouped.experts import GroupedExperts

HIDDEN, INNER, EXPERTS, SLOTS, KV, GROUP, WIDTH, LAYERS, VOCABULARY = 2560, 1536, 64, 6, 4, 5, 128, 28, 103_424
LENGTHS = {32: (128, 640, 2048), 128: (640, 2048), 256: (384,), 400: (128, 384, 640, 2048), 800: (384,)}
TILE_ROWS = {32: (16,), 128: (16, 32), 256: (32, 64), 400: (32, 64), 800: (64, 128)}
SHARED_MEMORY = 227 * 1024
BEST: dict[str, Any] = {}


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


def table(what: str, ways: dict[Any, Callable[[], Any]], show: int = 6) -> dict[Any, float]:
    """Measure each way of one thing and print the fastest."""
    with ThreadPoolExecutor(12) as pool:  # compiles; what fails here fails again below and is told of
        list(pool.map(_quietly, ways.values()))
    torch.cuda.synchronize()
    times = {}
    for name, run in ways.items():
        if (took := survive(f"{what} {name}", lambda run=run: milliseconds(run), brief=True)) is not None:
            times[name] = took
    for name in sorted(times, key=times.__getitem__)[:show]:
        print(f"{what:24} {times[name]:8.4f} ms  {_short(name)}", flush=True)
    return times


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

    choices = itertools.product((32, 64, 128), (2, 4, 8), (2, 3, 4))
    ways: dict[Any, Callable[[], Any]] = {
        tiles: ours(tiles)
        for tiles in itertools.starmap(AttentionTiles, choices)
        if 8 <= tiles.columns // tiles.warps <= 32
    }
    mask = torch.zeros(rows, 1, 1, length, device="cuda", dtype=torch.bfloat16)
    q = qkv[:, : GROUP * KV * WIDTH].reshape(rows, GROUP * KV, 1, WIDTH)
    module = SimpleNamespace(is_causal=True, training=False, num_key_value_groups=GROUP)
    ways["torch, without rope and the new key"] = lambda: present._grouped_attention(module, q, *next(turn), mask)[0]
    _note("attention", rows, length, table(f"attention {rows}x{length}", ways))


# The router and the experts


def layer_model(layers: int = 1, vocabulary: int = 512) -> Any:
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


def _routed(hidden: torch.Tensor, gate: Any) -> ops.Routed:
    counts = torch.zeros(EXPERTS, dtype=torch.int32, device="cuda")
    bias = gate.moe_statics.e_score_correction_bias.view(-1)
    return ops.route(hidden, gate.weight.float(), bias, SLOTS, gate.norm_min, counts)


def expert_tiles(rows: tuple[int, ...], gate_up: bool) -> Iterator[ExpertTiles]:
    """Tiles to try, of those that fit into shared memory."""
    shapes = [(64, 64, 4, 4), (64, 128, 4, 3), (128, 64, 4, 3), (128, 64, 8, 4), (128, 64, 4, 5), (256, 64, 8, 3)]
    for height, (columns, depth, warps, stages) in itertools.product(rows, shapes):
        if 2 * stages * depth * (height + columns * (2 if gate_up else 1)) + 1024 < SHARED_MEMORY:
            yield ExpertTiles(height, columns, depth, warps, stages)


def experts(all_rows: list[int]) -> None:
    mlp = layer_model().model.layers[0].mlp
    for rows in all_rows:
        _both_products(mlp, torch.randn(rows, HIDDEN, device="cuda").bfloat16())


def _both_products(mlp: Any, hidden: torch.Tensor) -> None:
    rows, weights = len(hidden), (mlp.experts.gate_up_proj.data, mlp.experts.down_proj.data)
    routed = _routed(hidden, mlp.gate)
    print(f"experts {rows}: rows of an expert {sorted(routed.counts.tolist())[::9]}", flush=True)
    active, out = (torch.randn(rows * SLOTS, width, device="cuda").bfloat16() for width in (INNER, HIDDEN))
    for name, source, weight, gate_up in (
        ("gate_up", hidden, weights[0], True),
        ("down", active, weights[1], False),
    ):
        tiles = expert_tiles(TILE_ROWS.get(rows, (64,)), gate_up)
        ways: dict[Any, Callable[[], Any]] = {
            each: partial(ops.expert_product, source, weight, routed, each, gate_up=gate_up) for each in tiles
        }
        _note(name, rows, 0, table(f"{name} {rows}", ways, show=4))
    residual, pairs, many = hidden.clone(), out, weights[0].view(-1, HIDDEN)
    down = weights[1].view(-1, 2 * INNER)[:HIDDEN]
    others: dict[Any, Callable[[], Any]] = {
        "router": lambda: _routed(hidden, mlp.gate).weights,
        "router by its module": lambda: mlp.gate(hidden)[1],
        "routed experts by their module": lambda: mlp.experts(hidden, routed.experts, routed.weights),
        "shared experts, ours": lambda: F.linear(ops.gated(F.linear(hidden, many[: 4 * INNER])), down),
        "shared experts by their module": lambda: mlp.shared_experts(hidden),
        "qkv": lambda: F.linear(hidden, many[: (GROUP + 2) * KV * WIDTH]),
        "output": lambda: F.linear(hidden, many[:HIDDEN]),
        "add_norm": lambda: ops.add_norm(residual, hidden[0], 1e-5, hidden),
        "add_norm of pairs": lambda: ops.add_norm(residual, hidden[0], 1e-5, hidden, pairs, routed.weights),
    }
    table(f"others {rows}", others, show=11)


def quantized(all_rows: list[int]) -> None:
    """The experts' products from weights in 4 bits with an adapter of rank 16, beside their module."""
    from bitsandbytes.nn import Params4bit

    model = layer_model().model.layers[0].mlp
    weights = (model.experts.gate_up_proj.data, model.experts.down_proj.data)
    module = GroupedExperts(*(Params4bit(each.cpu(), False, None, 64, True, "nf4").cuda() for each in weights))
    module.add_adapter(16, 16, ("gate_proj", "up_proj", "down_proj"))
    assert module.adapter is not None
    for second in module.adapter.lora_B.values():
        torch.nn.init.normal_(second, std=0.02)
    taken = quantized_experts(module, torch.bfloat16)
    assert taken is not None
    for rows in all_rows:
        hidden = torch.randn(rows, HIDDEN, device="cuda").bfloat16()
        routed = _routed(hidden, model.gate)
        for name, source, stack, gate_up in (
            ("4-bit gate_up", even_first(hidden), taken.gate_up, True),
            ("4-bit down", torch.randn(rows * SLOTS, INNER, device="cuda").bfloat16(), taken.down, False),
        ):
            shapes = itertools.product(TILE_ROWS.get(rows, (64,)), (64, 128), (64,), (4, 8), (3,))
            ways: dict[Any, Callable[[], Any]] = {
                tiles: partial(quantized_product, source, stack, routed, tiles, gate_up=gate_up)
                for tiles in itertools.starmap(ExpertTiles, shapes)
            }
            _note(name, rows, 0, table(f"{name} {rows}", ways, show=3))
        own = tiles_for(rows, rows * SLOTS / EXPERTS, KV, 9, quantized=True)

        def summed(hidden: Any = hidden, routed: Any = routed, own: Any = own) -> torch.Tensor:
            pairs = pairs_of(hidden, taken, routed, own.gate_up, own.down).view(-1, SLOTS, HIDDEN)
            return (pairs.float() * routed.weights.float()[:, :, None]).sum(1)

        both = {"both and their sum": summed, "by their module": partial(module, hidden, *routed[:2])}
        table(f"4-bit {rows}", both)


# The draw


def draw(all_rows: list[int]) -> None:
    """The head and the draw, without the layers."""
    head = torch.randn(VOCABULARY, HIDDEN, device="cuda").mul_(0.02).bfloat16()
    for rows in all_rows:
        hidden = torch.randn(rows, HIDDEN, device="cuda").bfloat16()
        seeds = torch.arange(rows, device="cuda")
        probabilities = F.linear(hidden, head).float().softmax(dim=1)
        ways: dict[Any, Callable[[], Any]] = {"only top_p": partial(nucleus, probabilities, 0.95)}
        for own in (GREEDY, Sampler(1.0), Sampler(1.0, 0.95)):
            ways[f"temperature {own.temperature:g}, top_p {own.top_p:g}"] = partial(_drawn, own, hidden, head, seeds)
        table(f"head and draw {rows}", ways)


def _drawn(sampler: Sampler, hidden: torch.Tensor, head: torch.Tensor, seeds: torch.Tensor) -> torch.Tensor:
    return sampler.draw(F.linear(hidden, head), seeds, torch.zeros_like(seeds))[0]


def _note(what: str, rows: int, length: int, times: dict[Any, float]) -> None:
    own = {name: took for name, took in times.items() if isinstance(name, tuple)}
    if own:
        best = min(own, key=own.__getitem__)
        BEST[f"{what} {rows}x{length}"] = [*best, round(own[best], 4)]
