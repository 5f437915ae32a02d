"""The kernels in Triton's interpreter, on a CPU, against the same functions in torch's operations.

    TRITON_INTERPRET=1 python -m ernie_pipeline_tests.models.grouped.interpreted

Prints, as JSON, by function: the kernels that it launched, and how far their output is from torch's, relative to that.
In fp32: the interpreter multiplies no bfloat16. A tensor that says that it is on CUDA takes a function to its kernel.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from typing import Any

import torch
from bitsandbytes.nn import Params4bit
from torch.nn import functional as F
from triton.runtime.interpreter import InterpretedFunction

from ernie_pipeline.models.documents import NOT_COUNTED
from ernie_pipeline.models.grouped import adapter_ops, dense_ops, fp8_mm, fused_ops, grouped_mm, nf4_mm, outer_products
from ernie_pipeline.models.grouped.dequantize import dequantize

ENDS = torch.tensor([0, 17, 17, 20, 52], dtype=torch.int32)
"""Of five experts, two without rows."""


@contextmanager
def on_cuda() -> Iterator[None]:
    """Every tensor says that it is there; what a card would be asked is answered for one before Hopper."""
    own, capability = torch.Tensor.is_cuda, torch.cuda.get_device_capability
    torch.Tensor.is_cuda = property(lambda self: True)  # type: ignore[assignment, misc]
    torch.cuda.get_device_capability = lambda device=None: (8, 0)
    try:
        yield
    finally:
        torch.Tensor.is_cuda, torch.cuda.get_device_capability = own, capability  # type: ignore[misc]


def apart(compute: Callable[[], torch.Tensor]) -> float:
    """Between what the kernel and what torch gives."""
    wanted = compute()
    with on_cuda():
        found = compute()
    return float((found.float() - wanted.float()).norm() / wanted.float().norm())


def quantized(experts: int, outputs: int, inputs: int, nested: bool = True) -> Params4bit:
    return Params4bit(torch.randn(experts, outputs, inputs), False, None, 64, nested, "nf4").to("cpu")


def in_the_interpreter(weight: Params4bit) -> torch.Tensor:
    """The values by the formula, with constants in bf16."""
    state, packed = weight.quant_state, weight.data.flatten()
    scale = state.state2.code[state.absmax.long()] * state.state2.absmax.repeat_interleave(256)[: len(state.absmax)]
    scale = ((scale + state.offset).view(torch.int32) & -65536).view(torch.float32)  # it cuts off instead of rounding
    codes = state.code[torch.stack([packed >> 4, packed & 15], dim=1).flatten().long()]
    return (codes.view(-1, 64) * scale[:, None]).view(state.shape)


def by_nf4_mm() -> float:
    weight, found = quantized(5, 128, 384), []
    values = in_the_interpreter(weight)
    ends = torch.tensor([0, 40, 150, 153, 430], dtype=torch.int32)
    for backward, rank, units in product((False, True), (0, 8, 24), (1, 3, 4)):
        deep, lora = (128, torch.randn(5, rank, 384)) if backward else (384, torch.randn(5, 128, rank))
        rows = torch.randn(430, deep + rank + 8)[:, : deep + rank]
        both = torch.cat([values, lora], dim=1) if backward else torch.cat([values, lora], dim=2).transpose(1, 2)
        wanted = grouped_mm.grouped_mm(rows, both, ends)
        out = nf4_mm.launch(rows, weight, lora, ends, backward, nf4_mm.TILE._replace(units=units))
        found.append(float((out - wanted).norm() / wanted.norm()))
    return max(found)


def by_dequantize() -> float:
    def compute(nested: bool) -> torch.Tensor:
        torch.manual_seed(1)
        out = torch.zeros(5, 72, 136)
        dequantize(quantized(5, 64, 128, nested), out[:, :64])
        return out

    return max(apart(lambda nested=nested: compute(nested)) for nested in (True, False))  # type: ignore[misc]


def by_grouped_mm() -> float:
    rows, weights = torch.randn(52, 80), torch.randn(5, 80, 48)
    return apart(lambda: grouped_mm.grouped_mm(rows, weights, ENDS))


def by_outer_products() -> float:
    """Of one target and of two, whose ranks are aligned or not; added to what is there, also from its other side."""
    wide, token = torch.randn(40, 150), torch.randint(0, 40, (52,))

    def compute(targets: int, rank: int, turned: bool) -> torch.Tensor:
        torch.manual_seed(3)
        narrow, shape = torch.randn(52, targets * 16 + 8)[:, : targets * 16], (150, rank) if turned else (rank, 150)
        outs = [out.transpose(1, 2) if turned else out for out in torch.randn(targets, 5, *shape)]
        outer_products.add_outer_products(outs, narrow, wide, ENDS, token=token, scale=0.3)
        return torch.stack(outs)

    return max(apart(lambda own=own: compute(*own)) for own in product((1, 2), (16, 12), (True, False)))  # type: ignore[misc]


def by_low_rank() -> float:
    """Rows gathered and rows that are there already; A, and B seen from its other side."""
    source, token, lora = torch.randn(40, 144), torch.randint(0, 40, (52,)), torch.randn(5, 24, 144)

    def compute(gathered: bool, lora: torch.Tensor) -> torch.Tensor:
        rows = torch.cat([source[token], torch.zeros(52, 24)], dim=1)
        if gathered:
            rows, low_rank = adapter_ops.gather_with_low_rank(source, token, lora, ENDS)
        else:
            low_rank = adapter_ops.add_low_rank(rows, lora, ENDS)
        return torch.cat([rows, low_rank], dim=1)

    turned = lora.transpose(1, 2).contiguous().transpose(1, 2)
    return max(apart(lambda: compute(g, own)) for g, own in product((True, False), (lora, turned)))  # noqa: B023


def by_low_rank_of_all() -> float:
    """Rows copied, normalized or not, and rows that are there already; A, and B seen from its other side."""
    source, lora = torch.randn(37, 152)[:, :144], torch.randn(24, 144)
    norm = dense_ops.Norm(torch.rand(144) + 0.5, 1e-3)

    def compute(lora: torch.Tensor, copied: bool, norm: dense_ops.Norm | None) -> torch.Tensor:
        rows = torch.cat([source, torch.zeros(37, 24)], dim=1)
        if copied:
            rows, low_rank = dense_ops.with_low_rank(source, lora, norm)
        else:
            low_rank = dense_ops.add_low_rank(rows, lora)
        return torch.cat([rows, low_rank], dim=1)

    turned = lora.t().contiguous().t()
    ways = product((lora, turned), ((True, None), (True, norm), (False, None)))
    return max(apart(lambda: compute(own, *way)) for own, way in ways)  # noqa: B023


def by_rms_norm_backward() -> float:
    x, grad, other = (torch.randn(7, 72) for _ in range(3))
    norm = dense_ops.Norm(torch.rand(72) + 0.5, 1e-3)

    def compute(added: bool, again: bool) -> torch.Tensor:
        grad_x, normalized = dense_ops.rms_norm_backward(x, norm, grad, other if added else None, again)
        return grad_x if normalized is None else torch.cat([grad_x, normalized])

    return max(apart(lambda way=way: compute(*way)) for way in product((True, False), repeat=2))  # type: ignore[misc]


def by_write_adapter() -> float:
    """Both targets of a stack, and each alone; a rank that is aligned, and one that is not; three unlike layers."""

    def compute(targets: tuple[int, ...], rank: int) -> torch.Tensor:
        torch.manual_seed(2)
        pairs = {target: (torch.randn(5, rank, 72), torch.randn(5, 40, rank)) for target in targets}
        width = 16 * len(targets)
        values = torch.zeros(5, 80 + width, 72 + width)
        adapter_ops.write_adapter(values[:, 80:, :72], values[:, :80, 72:], pairs, 16, 2.0)
        return values

    def unlike() -> torch.Tensor:
        torch.manual_seed(2)
        shapes = ((4, 40, 0, 0, 3.0), (1, 16, 40, 8, 1.0), (8, 24, 56, 16, 0.5))  # rank, height, row, column, scale
        parts = [
            adapter_ops.Part(torch.randn(1, rank, 72), torch.randn(1, height, rank), scale, row, column)
            for rank, height, row, column, scale in shapes
        ]
        values = torch.zeros(1, 104, 96)
        adapter_ops.write_parts(values[:, 80:, :72], values[:, :80, 72:], parts)
        return values

    stacks = [apart(lambda: compute(t, rank)) for t, rank in product(((0, 1), (0,), (1,)), (16, 12))]  # noqa: B023
    return max(*stacks, apart(unlike))


def exact_in_fp8(*shape: int) -> torch.Tensor:
    """Values that 8 bits hold, up to 448: the interpreter rounds some that they do not hold to another power of two."""
    return (torch.randint(-7, 8, shape) * 8.0).index_fill(-1, torch.tensor([0]), 448)


def in_two_parts(*shape: int) -> torch.Tensor:
    """Values that are rounded down to such a one, and what that leaves is one too."""
    return exact_in_fp8(*shape) / 8 * (1 + 1 / 64)


def by_rows_in_fp8() -> float:
    def compute(rank: int) -> torch.Tensor:
        torch.manual_seed(3)
        rows = torch.cat([exact_in_fp8(7, 48), in_two_parts(7, rank + 8)], dim=1)
        left, scales = fp8_mm.rows_in_fp8(rows[:, : 48 + rank], 48, torch.tensor(0.5))
        return torch.cat([left.float(), scales[:, None]], dim=1)

    return max(apart(lambda rank=rank: compute(rank)) for rank in (0, 8, 24))  # type: ignore[misc]


def by_weights_in_fp8() -> float:
    def far(transpose: bool, block: int, rank: int) -> float:
        weight, values = (
            Params4bit(torch.randn(5, 48, 128), False, None, block, False, "nf4").to("cpu"),
            exact_in_fp8(16),
        )
        state, packed = weight.quant_state, weight.data.flatten()
        state.code, state.absmax = values, torch.ones_like(state.absmax)
        base = values[torch.stack([packed >> 4, packed & 15], dim=1).flatten().long()].view(5, 48, 128)
        lora = in_two_parts(5, 128 if transpose else 48, rank)
        coarse = lora / (1 + 1 / 64)
        parts = [base.transpose(1, 2) if transpose else base, coarse, coarse, coarse / 64]
        wanted = F.pad(torch.cat(parts, dim=2), (0, -3 * rank % 16))
        with on_cuda():
            found = fp8_mm.weights_in_fp8(weight, lora, torch.tensor(1.0), transpose=transpose)
        return float((found.float() - wanted).norm() / wanted.norm())

    return max(far(*case) for case in product((True, False), (32, 64), (8, 16)))


def by_swiglu() -> float:
    gate, up, weight = torch.randn(7, 80), torch.randn(7, 80), torch.rand(7)

    def compute() -> torch.Tensor:
        out = torch.zeros(7, 96)
        fused_ops.swiglu_into(gate, up, weight, out)
        return out

    return apart(compute)


def by_swiglu_backward() -> float:
    gate, up, weight, grad = torch.randn(7, 80), torch.randn(7, 80), torch.rand(7), torch.randn(7, 80)

    def compute() -> torch.Tensor:
        out, again = torch.zeros(7, 160), torch.zeros(7, 80)
        own = fused_ops.swiglu_backward(gate, up, weight, grad, out, again)
        assert own is not None
        return torch.cat([out, again, own[:, None]], dim=1)

    return apart(compute)


def by_sum_slots() -> float:
    rows, row_of_slot = torch.randn(60, 48), torch.randperm(60).view(20, 3)
    return apart(lambda: fused_ops.sum_slots(rows, row_of_slot))


def by_rotary() -> float:
    """Forwards in place, and backwards into longer rows."""
    heads, angles = torch.randn(11, 5, 64), torch.rand(11, 32) * 6

    def compute() -> torch.Tensor:
        own, longer = heads.clone(), torch.zeros(11, 7, 64)
        fused_ops.rotate(own, angles.cos(), angles.sin(), own)
        fused_ops.rotate(heads, angles.cos(), angles.sin(), longer[:, :5], back=True)
        return torch.cat([own, longer], dim=1)

    return apart(compute)


def by_loss_and_gradient() -> float:
    logits, labels = torch.randn(5, 300) * 4, torch.tensor([0, 5, NOT_COUNTED, 299, 70])

    def compute() -> torch.Tensor:
        own = logits.clone()
        loss = fused_ops.loss_and_gradient(own, labels, torch.tensor([1.0, -2, 1, 0.5, 0]))
        return torch.cat([own.flatten(), loss.view(1)])

    return apart(compute)


FUNCTIONS = {name.removeprefix("by_"): value for name, value in dict(globals()).items() if name.startswith("by_")}


def main() -> None:
    torch.manual_seed(0)
    launched: list[str] = []
    launch = InterpretedFunction.run

    def heard(self: Any, *args: Any, **kwargs: Any) -> Any:
        launched.append(self.fn.__name__)
        return launch(self, *args, **kwargs)

    InterpretedFunction.run = heard
    told = {}
    for name, compute in FUNCTIONS.items():
        launched.clear()
        far = compute()
        told[name] = {"kernels": sorted(set(launched)), "apart": far}
    print(json.dumps(told))


if __name__ == "__main__":
    main()
