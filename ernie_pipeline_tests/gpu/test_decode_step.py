"""The kernels of a step of decoding on CUDA, against torch's operations in fp32, and the whole step against modules."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from transformers import Ernie4_5_MoeConfig, Ernie4_5_MoeForCausalLM

from ernie_pipeline.models.generation import decode, decode_ops
from ernie_pipeline.models.generation.decode_ops import AttentionTiles, ExpertTiles
from ernie_pipeline.models.generation.decode_step import FusedStep, fits
from ernie_pipeline.models.generation.fused import FusedExperts
from ernie_pipeline.models.generation.merged import BFLOAT16_CAPABILITY
from ernie_pipeline.models.generation.nucleus import by_sorting, nucleus
from ernie_pipeline.models.generation.quantized_experts import pairs_of, quantized_experts
from ernie_pipeline.models.grouped.experts import GroupedExperts

CAPTURES = torch.cuda.is_available() and torch.cuda.get_device_capability()[0] >= BFLOAT16_CAPABILITY
HOPPER = CAPTURES and torch.cuda.get_device_capability()[0] >= 9
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not CAPTURES, reason="needs a CUDA device of compute capability 8 or more, and there is none"),
]
TILES = [
    ExpertTiles(16, 64, 64, 4, 3),
    ExpertTiles(64, 64, 64, 4, 3),
    *([ExpertTiles(32, 128, 64, 4, 5), ExpertTiles(128, 128, 64, 8, 4)] if HOPPER else []),
]


def random(*shape: int, scale: float = 1.0, seed: int = 0) -> torch.Tensor:
    return (scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed))).to(torch.bfloat16).cuda()


def close(found: torch.Tensor, wanted: torch.Tensor, most: float = 5e-3) -> None:
    """Up to bf16's rounding."""
    assert (found.float() - wanted).norm() < most * wanted.norm()


def in_4_bits(gate_up: torch.Tensor, down: torch.Tensor, *, rank: int, targets: tuple[str, ...]) -> GroupedExperts:
    """These weights, with an adapter that changes what they give."""
    from bitsandbytes.nn import Params4bit

    stacks = (Params4bit(each.cpu(), False, None, 64, True, "nf4").to("cuda") for each in (gate_up, down))
    module = GroupedExperts(*stacks)
    module.add_adapter(rank, 2 * rank, targets)
    for second in module.adapter.lora_B.values() if module.adapter else ():
        torch.nn.init.normal_(second, std=0.1)
    return module


@pytest.mark.parametrize("width", [160, 2560])
def test_what_is_added_and_the_norm_of_it(width: int) -> None:
    residual, branch, pairs = random(7, width), random(7, width, seed=1), random(7, 3, width, seed=2)
    weights, norm = random(7, 3, seed=3), random(width, seed=4)
    counts = torch.full((12,), 5, dtype=torch.int32, device="cuda")
    total = residual.float() + branch.float() + (pairs.float() * weights.float()[..., None]).sum(1)
    out = decode_ops.add_norm(residual, norm, 1e-5, branch, pairs, weights, counts)
    close(residual, total)
    close(out, norm.float() * F.rms_norm(total, (width,), eps=1e-5), 1e-2)
    assert counts.tolist() == [0] * 12


@pytest.mark.parametrize(("experts", "slots", "tokens"), [(8, 2, 24), (64, 6, 400), (60, 5, 33)])
def test_routing_is_the_modules_(experts: int, slots: int, tokens: int) -> None:
    hidden, router = random(tokens, 192), random(experts, 192, scale=0.1, seed=1).float()
    bias = 0.01 * torch.randn(experts, device="cuda")
    probabilities = (hidden.double() @ router.double().T).softmax(dim=1)
    chosen = (probabilities + bias).topk(slots).indices
    weights = probabilities.gather(1, chosen)
    counts = torch.zeros(experts, dtype=torch.int32, device="cuda")
    routed = decode_ops.route(hidden, router, bias, slots, 1e-12, counts)
    assert torch.equal(routed.experts, chosen)
    close(routed.weights, (weights / weights.sum(dim=1, keepdim=True)).float())
    assert torch.equal(routed.counts.long(), chosen.flatten().bincount(minlength=experts))
    for expert, count in enumerate(routed.counts.tolist()):
        pairs = (chosen.flatten() == expert).nonzero()[:, 0].tolist()
        assert sorted(routed.table[expert, :count].tolist()) == pairs


@pytest.mark.parametrize("tiles", TILES)
@pytest.mark.parametrize("inner", [160, 256])
@pytest.mark.parametrize("tokens", [1, 24, 300])
def test_the_experts_products(tiles: ExpertTiles, inner: int, tokens: int) -> None:
    hidden, experts, slots = random(tokens, 320), 8, 3
    gate_up, down = random(experts, 2 * inner, 320, scale=0.1, seed=1), random(experts, 320, inner, scale=0.1, seed=2)
    bias, counts = torch.zeros(experts, device="cuda"), torch.zeros(experts, dtype=torch.int32, device="cuda")
    routed = decode_ops.route(hidden, random(experts, 320, scale=0.1, seed=3).float(), bias, slots, 1e-12, counts)
    own = routed.experts.flatten()
    rows = hidden.float().repeat_interleave(slots, dim=0)[:, :, None]
    gate, up = (gate_up.float()[own] @ rows)[..., 0].chunk(2, dim=1)
    active = decode_ops.expert_product(hidden, gate_up, routed, tiles, gate_up=True)
    close(active, F.silu(gate) * up, 1e-2)
    out = decode_ops.expert_product(active, down, routed, tiles, gate_up=False)
    close(out, (down.float()[own] @ active.float()[:, :, None])[..., 0])


@pytest.mark.parametrize("tiles", [ExpertTiles(16, 64, 64, 4, 3), ExpertTiles(64, 128, 64, 8, 3)])
@pytest.mark.parametrize("targets", [(), ("gate_proj", "up_proj", "down_proj"), ("up_proj",)])
@pytest.mark.parametrize("rank", [4, 20])
def test_experts_in_4_bits_with_their_adapter(tiles: ExpertTiles, targets: tuple[str, ...], rank: int) -> None:
    tokens, experts, slots, hidden, inner = 70, 8, 3, 320, 192
    weights = random(experts, 2 * inner, hidden, scale=0.1, seed=1), random(experts, hidden, inner, scale=0.1, seed=2)
    module = in_4_bits(*weights, rank=rank, targets=targets)
    source, bias = random(tokens, hidden), torch.zeros(experts, device="cuda")
    router, counts = random(experts, hidden, scale=0.1, seed=3).float(), torch.zeros_like(bias, dtype=torch.int32)
    routed = decode_ops.route(source, router, bias, slots, 1e-12, counts)
    taken = quantized_experts(module, torch.bfloat16)
    assert taken is not None
    pairs = pairs_of(source, taken, routed, tiles, tiles).view(tokens, slots, hidden)
    with torch.no_grad():
        close((pairs.float() * routed.weights.float()[:, :, None]).sum(1), module(source, *routed[:2]).float(), 1e-2)


@pytest.mark.parametrize("tiles", [AttentionTiles(64, 4, 3), AttentionTiles(32, 2, 3)])
@pytest.mark.parametrize(("kv", "group", "width"), [(2, 2, 64), (4, 5, 128)])
def test_attention_writes_the_cache_and_reads_each_row_as_far_as_it_goes(
    tiles: AttentionTiles, kv: int, group: int, width: int
) -> None:
    positions = torch.tensor([0, 1, 63, 64, 200], device="cuda")
    rows, capacity = len(positions), 201
    caches = [random(rows, kv, capacity, width, seed=seed) for seed in (1, 2)]
    behind = torch.arange(capacity, device="cuda") >= positions[:, None]
    for cache in caches:
        cache.masked_fill_(behind[:, None, :, None], float("nan"))  # not to be read
    qkv, angles = random(rows, (group + 2) * kv * width, seed=3), 6 * torch.rand(rows, width // 2, device="cuda")
    cos, sin = angles.cos(), angles.sin()
    found = decode_ops.attend(qkv, cos, sin, positions, caches[0], caches[1], tiles)

    def rotated(x: torch.Tensor) -> torch.Tensor:
        even, odd = x.float().view(rows, -1, width // 2, 2).unbind(-1)
        c, s = cos[:, None], sin[:, None]
        return torch.stack((even * c - odd * s, odd * c + even * s), dim=-1).flatten(-2)

    q, k, v = qkv.split([group * kv * width, kv * width, kv * width], dim=1)
    for row, position in enumerate(positions.tolist()):
        keys, values = (cache[row, :, : position + 1].float() for cache in caches)
        close(keys[:, -1], rotated(k)[row])
        assert torch.equal(values[:, -1], v[row].view(kv, width).float())
        assert caches[0][row, :, position + 1 :].isnan().all()
        queries = rotated(q)[row].view(kv, group, width)
        close(found[row].view(kv, group, width), F.scaled_dot_product_attention(queries, keys, values), 1e-2)


@pytest.mark.parametrize("top_p", [1e-9, 0.5, 0.95, 0.999])
@pytest.mark.parametrize("scale", [0.5, 3.0, 10.0])
def test_the_kernel_leaves_what_top_p_leaves_by_its_definition(scale: float, top_p: float) -> None:
    probabilities = random(9, 103_424, scale=scale).float().softmax(dim=1)  # of logits in bf16: many are equal
    found, wanted = nucleus(probabilities, top_p), by_sorting(probabilities, top_p)
    assert ((found == 0) | (found == probabilities)).all()
    # the sums are rounded otherwise, and so the last few may be others
    assert (found - wanted).abs().sum(dim=1).max() < 3e-5
    assert (found.sum(dim=1) >= top_p - 1e-5).all()


@pytest.fixture(scope="module")
def model() -> Any:
    """A dense layer and two with experts, of one in 4 bits with an adapter, of widths that the tiles do not divide."""
    config = Ernie4_5_MoeConfig(
        vocab_size=512, hidden_size=320, intermediate_size=416, moe_intermediate_size=192, num_hidden_layers=3,
        num_attention_heads=10, num_key_value_heads=2, head_dim=64, moe_num_experts=12, moe_k=3, moe_layer_end_index=2,
    )  # fmt: skip
    torch.manual_seed(0)
    model = Ernie4_5_MoeForCausalLM(config).to(torch.bfloat16).cuda().requires_grad_(False).eval()
    for layer in model.model.layers[1:]:
        old = layer.mlp.experts
        torch.nn.init.normal_(layer.mlp.gate.float().weight, std=0.1)  # else all are equal, and any may be chosen
        for weight in (old.gate_up_proj, old.down_proj):
            torch.nn.init.normal_(weight, std=0.05)
        layer.mlp.experts = FusedExperts(old.gate_up_proj.data, old.down_proj.data, old.act_fn)
    layer.mlp.experts = in_4_bits(*layer.mlp.experts.dense(), rank=4, targets=("gate_proj", "up_proj", "down_proj"))
    return model


@torch.inference_mode()
def test_a_step_gives_the_modules_logits(model: Any) -> None:
    assert fits(model)
    rows, length = 40, 96
    caches = [[random(rows, 2, length, 64, seed=9 * i + layer) for layer in range(3)] for i in (0, 1)]
    positions = torch.arange(rows, device="cuda") * 2
    tokens = torch.arange(rows, device="cuda") + 7
    copies = [[each.clone() for each in cache] for cache in caches]
    found = FusedStep(model).logits(tokens, positions, *caches)
    columns = torch.arange(length, device="cuda")
    state: Any = SimpleNamespace(
        positions=positions,
        keys=copies[0],
        values=copies[1],
        tokens=tokens,
        columns=columns,
        routes=None,
        device="cuda",
    )
    steps: Any = decode._Steps.__new__(decode._Steps)
    steps.model, steps.state = model, state
    with decode._attention(model):
        wanted = steps._by_modules(rows, length)
    differences = (found.float() - wanted.float()).norm(dim=1) / wanted.float().norm(dim=1)
    assert (differences < 0.03).float().mean() > 0.8  # where two experts tie in the router, rounding decides
    for ours, theirs in zip(caches, copies, strict=True):
        for one, other in zip(ours, theirs, strict=True):
            close(one, other.float(), 0.02)


def test_the_joined_weights_are_held_once(model: Any) -> None:
    FusedStep(model)
    attention = model.model.layers[0].self_attn
    whole = attention.q_proj.weight.untyped_storage().data_ptr()
    assert attention.v_proj.weight.untyped_storage().data_ptr() == whole
