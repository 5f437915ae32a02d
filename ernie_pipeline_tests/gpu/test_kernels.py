"""Each kernel on CUDA against the same function in torch's operations on a CPU, or against bitsandbytes."""

from copy import deepcopy
from typing import Any

import pytest
import torch

from ernie_pipeline.models.documents import NOT_COUNTED
from ernie_pipeline.models.grouped import adapter_ops, dense_ops, fp8_mm, fused_ops, grouped_mm, nf4_mm
from ernie_pipeline.models.grouped.fused_ops import loss_and_gradient
from ernie_pipeline.models.grouped.outer_products import add_outer_products
from ernie_pipeline.models.memory import round_up

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, and this machine has none"),
]


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(torch.bfloat16)


def close(on_gpu: torch.Tensor, on_cpu: torch.Tensor) -> None:
    """Up to bf16's rounding."""
    difference = (on_gpu.cpu().float() - on_cpu.float()).norm()
    assert difference < 5e-3 * on_cpu.float().norm()


@pytest.mark.parametrize("rows", [1, 37])
@pytest.mark.parametrize("inner", [160, 1536])
@pytest.mark.parametrize("weighted", [True, False])
def test_swiglu(rows: int, inner: int, weighted: bool) -> None:
    both, weight = random(rows, 2 * inner), random(rows, seed=1)
    grad = random(rows, inner, seed=2)

    def passes(device: str) -> list[Any]:
        gate, up = both.to(device).chunk(2, dim=1)
        own = weight.to(device) if weighted else None
        out = torch.full((rows, inner + 16), 7.0, dtype=torch.bfloat16, device=device)
        fused_ops.swiglu_into(gate, up, own, out)
        recomputed = torch.empty_like(out[:, :inner])
        grads = torch.full((rows, 2 * inner + 32), 7.0, dtype=torch.bfloat16, device=device)
        grad_weight = fused_ops.swiglu_backward(gate, up, own, grad.to(device), grads, recomputed)
        assert torch.equal(recomputed, out[:, :inner])
        return [out, grads, grad_weight]

    for on_gpu, on_cpu in zip(passes("cuda"), passes("cpu"), strict=True):
        assert (on_gpu is None) == (on_cpu is None)
        if on_cpu is not None:
            close(on_gpu, on_cpu)


def test_sum_slots() -> None:
    rows = random(60, 272)
    row_of_slot = torch.randperm(60, generator=torch.Generator().manual_seed(2)).view(20, 3)
    for width in (272, 256):
        on_gpu = fused_ops.sum_slots(rows.cuda()[:, :width], row_of_slot.cuda())
        close(on_gpu, fused_ops.sum_slots(rows[:, :width], row_of_slot))


@pytest.mark.parametrize("size", [64, 128])
def test_rotary_and_its_gradient(size: int) -> None:
    heads, angles = random(11, 5, size), torch.rand(11, size // 2) * 6

    def passes(device: str) -> list[torch.Tensor]:
        own = heads.detach().clone().to(device).requires_grad_()
        out = fused_ops.apply_rotary(own, angles.cos().to(device), angles.sin().to(device))
        (out * heads.to(device).flip(0)).sum().backward()  # type: ignore[no-untyped-call]
        assert own.grad is not None
        return [out.detach(), own.grad]

    for on_gpu, on_cpu in zip(passes("cuda"), passes("cpu"), strict=True):
        close(on_gpu, on_cpu)


def test_rotation_in_place_and_back_into_longer_rows() -> None:
    heads, angles = random(11, 5, 128), torch.rand(11, 64) * 6

    def both(device: str) -> list[torch.Tensor]:
        own, cos, sin = (t.to(device, copy=True) for t in (heads, angles.cos(), angles.sin()))
        longer = torch.full((11, 7, 128), 7.0, dtype=torch.bfloat16, device=device)
        fused_ops.rotate(own, cos, sin, longer[:, :5], back=True)
        return [fused_ops.rotate(own, cos, sin, own), longer]

    for on_gpu, on_cpu in zip(both("cuda"), both("cpu"), strict=True):
        close(on_gpu, on_cpu)


WEIGHTS = torch.tensor([1.0, -0.5, 3, 0, 2.5, -7, -1, 0.25, 1e-3])


@pytest.mark.parametrize("vocabulary", [768, 103_424])
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["unweighted", "weighted"])
def test_loss_and_gradient(vocabulary: int, weights: torch.Tensor | None) -> None:
    logits = random(9, vocabulary) * 4
    labels = torch.tensor([0, 5, NOT_COUNTED, vocabulary - 1, 700, 3, NOT_COUNTED, 2, 1])
    on_gpu, on_cpu = logits.cuda(), logits.clone()
    of_gpu = loss_and_gradient(on_gpu, labels.cuda(), None if weights is None else weights.cuda())
    losses = of_gpu, loss_and_gradient(on_cpu, labels, weights)
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-4)
    close(on_gpu, on_cpu)
    assert not on_gpu[[2, 6] if weights is None else [2, 3, 6]].any()


def test_weights_of_one_change_no_bit() -> None:
    logits, labels = (random(9, 768) * 4).cuda(), torch.arange(9).cuda()
    plain, weighted = logits.clone(), logits.clone()
    losses = loss_and_gradient(plain, labels), loss_and_gradient(weighted, labels, torch.ones(9).cuda())
    assert torch.equal(*losses)
    assert torch.equal(plain, weighted)


@pytest.mark.parametrize("shape", [(8, 320, 256), (8, 256, 160), (2560, 2560)])
@pytest.mark.parametrize("nested", [True, False])
def test_dequantize_gives_what_bitsandbytes_gives_bit_for_bit(shape: tuple[int, ...], nested: bool) -> None:
    from bitsandbytes.functional import dequantize_4bit
    from bitsandbytes.nn import Params4bit

    from ernie_pipeline.models.grouped.dequantize import dequantize

    weight = Params4bit(random(*shape), False, None, 64, nested, "nf4").to("cuda")
    *experts, rows, columns = shape
    out = torch.full((*experts, rows + 16, columns + 16), 7.0, dtype=torch.bfloat16, device="cuda")
    dequantize(weight, out[..., :rows, :])
    assert torch.equal(out[..., :rows, :columns], dequantize_4bit(weight.data, weight.quant_state).view(shape))
    assert (out[..., columns:] == 7).all()
    assert (out[..., rows:, :] == 7).all()


@pytest.mark.parametrize("rank", [8, 12, 16, 24, 32, 160])
@pytest.mark.parametrize("targets", [1, 2])
@pytest.mark.parametrize("turned", [True, False])
@pytest.mark.parametrize("gathered", [True, False])
def test_outer_products(rank: int, targets: int, turned: bool, gathered: bool) -> None:
    ends, width = torch.tensor([70, 70, 73, 203, 204], dtype=torch.int32), targets * round_up(rank, 8)
    narrow, wide = random(204, width + 8)[:, :width], random(40 if gathered else 204, 272, seed=1)[:, :256]
    token = torch.randint(0, 40, (204,), generator=torch.Generator().manual_seed(2)) if gathered else None
    generator = torch.Generator().manual_seed(3)
    shape = (targets, 5, 256, rank) if turned else (targets, 5, rank, 256)
    before = torch.randn(shape, generator=generator)

    def added(device: str, to: torch.Tensor, scale: float) -> torch.Tensor:
        sums = to.to(device, copy=True)
        outs = (sums.transpose(2, 3) if turned else sums).unbind()
        own = None if token is None else token.to(device)
        add_outer_products(outs, narrow.to(device), wide.to(device), ends.to(device), token=own, scale=scale)
        return sums

    on_gpu, on_cpu = added("cuda", before, 0.3), added("cpu", before, 0.3)
    assert (on_gpu.cpu() - on_cpu).norm() < 1e-5 * on_cpu.norm()
    assert torch.equal(on_gpu[:, 1].cpu(), before[:, 1])  # of an expert without rows
    product = added("cuda", torch.zeros_like(before), 1.0)  # bit for bit as one operation after the other
    assert torch.equal(on_gpu, before.cuda() + product * 0.3)


ENDS = torch.tensor([0, 70, 70, 73, 203, 204], dtype=torch.int32)
"""Of six experts, two without rows."""


@pytest.mark.parametrize(("depth", "n"), [(256, 320), (272, 32), (80, 48), (40, 130), (2592, 1536)])
@pytest.mark.parametrize("transposed", [True, False])
@pytest.mark.parametrize("rows", [204, 5 * 204])
def test_grouped_mm_of_cards_for_which_torch_has_none(
    depth: int, n: int, transposed: bool, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grouped_mm, "TORCH_CAPABILITIES", ())
    ends = ENDS * (rows // 204)
    x, weights = random(rows, depth + 16)[:, :depth], random(6, n, depth + 8, seed=1)[..., :depth]
    weights = weights.transpose(1, 2) if transposed else weights.transpose(1, 2).contiguous()
    starts = [0, *ends.tolist()]
    wanted = [x[a:b].float() @ w.float() for a, b, w in zip(starts, starts[1:], weights, strict=False)]
    close(grouped_mm.grouped_mm(x.cuda(), weights.cuda(), ends.cuda()), torch.cat(wanted))


@pytest.mark.parametrize("gathered", [True, False])
@pytest.mark.parametrize("turned", [True, False])
@pytest.mark.parametrize(("depth", "width"), [(2560, 32), (272, 16), (160, 24), (96, 144)])
@pytest.mark.parametrize("times", [1, 5])
def test_low_rank(gathered: bool, turned: bool, depth: int, width: int, times: int) -> None:
    token = torch.randint(0, 40, (204 * times,), generator=torch.Generator().manual_seed(2))
    source, lora, ends = random(40, depth + 8)[:, :depth], random(6, width, depth, seed=1), times * ENDS
    lora = lora.transpose(1, 2).contiguous().transpose(1, 2) if turned else lora

    def both(device: str) -> tuple[torch.Tensor, torch.Tensor]:
        own, places = source.to(device), token.to(device)
        if gathered:
            return adapter_ops.gather_with_low_rank(own, places, lora.to(device), ends.to(device))
        rows = torch.nn.functional.pad(own, (0, width), value=7.0)[places]
        return rows, adapter_ops.add_low_rank(rows, lora.to(device), ends.to(device))

    rows, low_rank = both("cuda")
    assert torch.equal(rows[:, :depth].cpu(), source[token])
    assert torch.equal(rows[:, depth:], low_rank)
    close(low_rank, both("cpu")[1])


@pytest.mark.parametrize("copied", [True, False])
@pytest.mark.parametrize("normed", [True, False])
@pytest.mark.parametrize("turned", [True, False])
@pytest.mark.parametrize(("depth", "width"), [(2560, 48), (3072, 16), (160, 24), (96, 480)])
@pytest.mark.parametrize("rows", [1, 37, 5000])
def test_low_rank_of_all(copied: bool, normed: bool, turned: bool, depth: int, width: int, rows: int) -> None:
    source, lora = random(rows, depth + 8)[:, :depth], random(width, depth, seed=1)
    lora = lora.t().contiguous().t() if turned else lora
    weight = random(depth, seed=2)

    def both(device: str) -> tuple[torch.Tensor, torch.Tensor]:
        own = source.to(device)
        if copied:
            norm = dense_ops.Norm(weight.to(device), 1e-5) if normed else None
            return dense_ops.with_low_rank(own, lora.to(device), norm)
        longer = torch.nn.functional.pad(own, (0, width), value=7.0)
        return longer, dense_ops.add_low_rank(longer, lora.to(device))

    for on_gpu, on_cpu in zip(both("cuda"), both("cpu"), strict=True):
        close(on_gpu, on_cpu)


@pytest.mark.parametrize("depth", [72, 2560])
@pytest.mark.parametrize("added", [True, False])
@pytest.mark.parametrize("again", [True, False])
def test_rms_norm_backward(depth: int, added: bool, again: bool) -> None:
    x, grad, other, weight = (random(37, depth, seed=seed) for seed in range(4))

    def both(device: str) -> tuple[torch.Tensor, torch.Tensor | None]:
        own, norm = x.to(device), dense_ops.Norm(weight[0].to(device), 1e-5)
        more = other.to(device) if added else None
        return dense_ops.rms_norm_backward(own, norm, grad.to(device), more, again)

    for on_gpu, on_cpu in zip(both("cuda"), both("cpu"), strict=True):
        assert (on_gpu is None) == (on_cpu is None)
        if on_gpu is not None and on_cpu is not None:
            close(on_gpu, on_cpu)


def test_adapters_of_unlike_layers_are_written_at_once() -> None:
    shapes = ((4, 40, 0, 0, 3.0), (1, 16, 40, 8, 1.0), (8, 24, 56, 16, 0.5))  # rank, height, row, column, scale
    adapters = [(torch.randn(1, rank, 272), torch.randn(1, height, rank)) for rank, height, *_ in shapes]

    def written(device: str) -> torch.Tensor:
        parts = [
            adapter_ops.Part(a.to(device), b.to(device), scale, row, column)
            for (a, b), (_, _, row, column, scale) in zip(adapters, shapes, strict=True)
        ]
        values = torch.full((1, 104, 296), 7.0, dtype=torch.bfloat16, device=device)
        adapter_ops.write_parts(values[:, 80:, :272], values[:, :80, 272:], parts)
        return values

    assert torch.equal(written("cuda").cpu(), written("cpu"))


@pytest.mark.parametrize("targets", [(0, 1), (0,), (1,)])
@pytest.mark.parametrize(("rank", "aligned"), [(16, 16), (12, 16), (160, 160)])
def test_write_adapter(targets: tuple[int, ...], rank: int, aligned: int) -> None:
    pairs = {t: (torch.randn(6, rank, 272), torch.randn(6, 80, rank)) for t in targets}
    width = aligned * len(targets)

    def written(device: str) -> torch.Tensor:
        own = {target: tuple(tensor.to(device) for tensor in pair) for target, pair in pairs.items()}
        values = torch.full((6, 160 + width, 272 + width), 7.0, dtype=torch.bfloat16, device=device)
        adapter_ops.write_adapter(values[:, 160:, :272], values[:, :160, 272:], own, aligned, 2.0)
        return values

    assert torch.equal(written("cuda").cpu(), written("cpu"))


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("rank", [0, 8, 32])
@pytest.mark.parametrize("times", [1, 3])
def test_nf4_mm(backward: bool, rank: int, times: int) -> None:
    from bitsandbytes.nn import Params4bit

    weight = Params4bit(random(6, 384, 256), False, None, 64, True, "nf4").to("cuda")
    ends, rows = (times * ENDS).cuda(), 204 * times
    depth, lora = (384, random(6, rank, 256, seed=1)) if backward else (256, random(6, 384, rank, seed=1))
    x = random(rows, depth + rank + 8, seed=2).cuda()[:, : depth + rank]
    assert nf4_mm.reads_nf4(weight, rows)
    wanted = nf4_mm.in_torch(x, weight, lora.cuda(), ends, backward)
    close(nf4_mm.nf4_mm(x, weight, lora.cuda(), ends, backward=backward), wanted.cpu())


@pytest.mark.parametrize("tokens", [256, 1024, 2048])
@pytest.mark.parametrize("backward", [False, True])
def test_nf4_mm_gives_the_same_bits_each_time(tokens: int, backward: bool) -> None:
    from bitsandbytes.nn import Params4bit

    weight = Params4bit(torch.randn(64, 1536, 2560, device="cuda", dtype=torch.bfloat16), False, None, 64, True, "nf4")
    weight = weight.to("cuda")
    chosen = torch.rand(tokens, 64, device="cuda").topk(6, dim=1).indices
    ends = torch.bincount(chosen.flatten(), minlength=64).cumsum(0).to(torch.int32)
    deep, lora = (1536, torch.randn(64, 32, 2560)) if backward else (2560, torch.randn(64, 1536, 32))
    lora = lora.to("cuda", torch.bfloat16)
    x = torch.randn(6 * tokens, deep + 32, device="cuda", dtype=torch.bfloat16)
    assert nf4_mm.reads_nf4(weight, len(x))
    first = nf4_mm.nf4_mm(x, weight, lora, ends, backward=backward)
    close(first, nf4_mm.in_torch(x, weight, lora, ends, backward).cpu())
    for _ in range(50):
        assert torch.equal(nf4_mm.nf4_mm(x, weight, lora, ends, backward=backward), first)


def test_only_what_the_kernel_can_is_read_in_4_bits() -> None:
    from bitsandbytes.nn import Params4bit

    def reads(shape: tuple[int, ...], nested: bool = True, kind: str = "nf4", rows: int = 64) -> bool:
        return nf4_mm.reads_nf4(Params4bit(random(*shape), False, None, 64, nested, kind).to("cuda"), rows)

    assert reads((6, 384, 256))
    assert not reads((6, 320, 256))
    assert not reads((6, 384, 160))
    assert not reads((6, 384, 256), nested=False)
    assert not reads((6, 384, 256), kind="fp4")
    assert not reads((6, 384, 256), rows=6 * 1000)


hopper = pytest.mark.skipif(
    not torch.cuda.is_available() or torch.cuda.get_device_capability() != fp8_mm.CAPABILITY,
    reason="torch has the product in 8-bit floats for Hopper alone",
)


@hopper
@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("rank", [0, 8, 16, 32])
@pytest.mark.parametrize(("block", "nested"), [(64, True), (32, False)])
def test_fp8_mm_rounds_as_torch_does_and_multiplies(backward: bool, rank: int, block: int, nested: bool) -> None:
    from bitsandbytes.nn import Params4bit

    weight = Params4bit(random(6, 384, 320).float(), False, None, block, nested, "nf4").to("cuda")
    on_cpu = deepcopy(weight).to("cpu")
    depth, lora = (384, random(6, rank, 320, seed=1)) if backward else (320, random(6, 384, rank, seed=1))
    x = random(204, depth + rank + 8, seed=2)[:, : depth + rank]
    turned, factor = lora.transpose(1, 2) if backward else lora, torch.tensor(6 / 448)
    values = fp8_mm.weights_in_fp8(weight, turned.cuda(), factor.cuda(), transpose=backward)
    same(values, fp8_mm.weights_in_fp8(on_cpu, turned, factor, transpose=backward))
    for on_gpu, wanted in zip(
        fp8_mm.rows_in_fp8(x.cuda(), depth, factor.cuda()), fp8_mm.rows_in_fp8(x, depth, factor), strict=True
    ):
        same(on_gpu, wanted)
    found = fp8_mm.fp8_mm(x.cuda(), weight, lora.cuda(), ENDS.cuda(), backward=backward)
    close(found, fp8_mm.fp8_mm(x, on_cpu, lora, ENDS, backward=backward))
    exact = nf4_mm.in_torch(x.float(), on_cpu, lora.float(), ENDS, backward)
    assert 0.01 < (found.cpu().float() - exact).norm() / exact.norm() < 0.05


def same(on_gpu: torch.Tensor, on_cpu: torch.Tensor) -> None:
    """But for a few that a division rounded the other way puts beside a boundary of the format, an eighth away."""
    difference = (on_gpu.cpu().float() - on_cpu.float()).abs()
    assert (difference > 1e-6 * on_cpu.float().abs()).float().mean() < 3e-3
    assert difference.norm() < 6e-3 * on_cpu.float().norm()


SHARED_KIB = {80: 163, 86: 99, 89: 99, 120: 99}
"""Shared memory that a program may have, by compute capability (A100; A10 and RTX 30; L40S and RTX 40; RTX 50).
https://docs.nvidia.com/cuda/cuda-c-programming-guide/#features-and-technical-specifications-technical-specifications-per-compute-capability"""


def test_every_kernel_compiles_for_other_cards_and_has_the_memory_there(monkeypatch: pytest.MonkeyPatch) -> None:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.runtime import driver
    from triton.runtime.jit import JITFunction

    from ernie_pipeline.models.grouped import adapter_kernels, dense_kernels, kernels

    launches: list[Any] = []
    launch = JITFunction.run

    def heard(self: Any, *args: Any, **kwargs: Any) -> Any:
        launches.append((self.fn, args, {n: v for n, v in kwargs.items() if n not in ("grid", "warmup")}))
        return launch(self, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(JITFunction, "run", heard)
        test_swiglu(1, 1536, True)
        test_sum_slots()
        test_rotary_and_its_gradient(128)
        test_loss_and_gradient(103_424, None)
        test_loss_and_gradient(103_424, WEIGHTS)
        test_dequantize_gives_what_bitsandbytes_gives_bit_for_bit((2560, 2560), True)
        for targets in (1, 2):
            test_outer_products(160, targets, True, True)
        test_low_rank(True, False, 2560, 32, 5)
        test_low_rank_of_all(True, True, False, 2560, 48, 5000)
        test_low_rank_of_all(False, False, True, 2560, 48, 5000)
        test_rms_norm_backward(2560, True, True)
        test_write_adapter((0, 1), 16, 16)
        for rows in (204, 5 * 204):
            test_grouped_mm_of_cards_for_which_torch_has_none(2592, 1536, True, rows, monkeypatch)
    called = kernels.tile_of_expert, kernels.values_of_blocks, adapter_kernels._part_of_A, adapter_kernels._part_of_B
    inner = {kernel.fn for kernel in called}
    modules = (*vars(kernels).values(), *vars(adapter_kernels).values(), *vars(dense_kernels).values())
    assert {fn for fn, _, _ in launches} | inner == {k.fn for k in modules if isinstance(k, JITFunction)}
    for capability, kib in SHARED_KIB.items():
        target = GPUTarget("cuda", capability, 32)
        monkeypatch.setattr(driver.active, "get_current_target", lambda target=target: target)
        for fn, args, options in launches:
            compiled = triton.jit(fn).warmup(*args, grid=(1,), **options)
            assert compiled.metadata.target == target
            assert compiled.metadata.shared <= kib * 1024, fn.__name__
