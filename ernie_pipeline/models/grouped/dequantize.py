"""4-bit weights back in 16 bits, into a buffer of the caller's: one pass over memory on CUDA, bitsandbytes elsewhere.

bitsandbytes dequantizes a doubly quantized stack in three kernels and only into a tensor of its own. The products of
`products.py` want the weights of a layer beside the adapter's, in rows that are longer than the weights'.
"""

from typing import Any

import torch

try:
    import triton

    from ernie_pipeline.models.grouped import kernels
except ImportError:  # no CUDA build of torch
    triton = None

BYTES = 4096
"""Bytes of 4-bit values that a program of the kernel dequantizes, with four warps: 4.0 TB/s on an H200, as ways that
look nothing up in memory; 2048 with eight made 3.3."""


def dequantize(weight: Any, out: torch.Tensor) -> None:
    """Write the values of `weight`, a quantized `Params4bit` of rows of K values, into `out[..., :K]`.

    `out` is [rows, K or more], or [experts, rows, K or more] for a stack; only its last axis has to be dense.
    Dettmers et al. 2023, "QLoRA", section 3: value = code[4 bits] * constant of its block, and with double quantization
    constant = code2[8 bits] * constant of the constants' block + offset. Bit for bit what bitsandbytes gives.
    """
    state = weight.quant_state
    columns = state.shape[-1]
    if not out.is_cuda:
        from bitsandbytes.functional import dequantize_4bit

        out[..., :columns] = dequantize_4bit(weight.data, state).view(state.shape)
        return
    rows, stride = out.shape[-2], out.stride(-2)
    kernels.dequantize[(triton.cdiv(weight.data.numel(), BYTES),)](
        *operands(weight),
        out,
        weight.data.numel(),
        stride,
        out.stride(0) - rows * stride if out.ndim > 2 else 0,
        K=columns,
        ROWS=rows if out.ndim > 2 else 1,  # it counts for a stack; one kernel less for each number
        **blocks(state),
        BYTES=BYTES,
        num_warps=4,
        enable_fp_fusion=False,  # a product and a sum, rounded each, as bitsandbytes does
    )


def operands(weight: Any) -> tuple[torch.Tensor, ...]:
    """What a kernel reads of a quantized weight: its bytes, its constants and theirs, and the codes of both."""
    state = weight.quant_state
    outer = state.state2 if state.nested else state
    offset = state.offset if state.nested else state.absmax
    return weight.data, state.absmax, outer.code, outer.absmax, offset, state.code


def blocks(state: Any) -> dict[str, Any]:
    """How many values share a constant, how many constants one of their own, and whether they do."""
    outer = state.state2 if state.nested else state
    return {"BLOCK": state.blocksize, "BLOCK2": outer.blocksize, "NESTED": bool(state.nested)}
