"""The kernel's assembly, which Triton's interpreter cannot run, in an interpreter of the instructions that it has."""

import pytest
import torch

pytest.importorskip("triton", reason="needs the package triton: the extra dev, on Linux")

from ernie_pipeline.models.grouped.nf4_kernels import NF4, _lookup

WORD = 0xFFFFFFFF


def prmt(low: int, high: int, selector: int) -> int:
    """https://docs.nvidia.com/cuda/parallel-thread-execution/#data-movement-and-conversion-instructions-prmt"""
    data, result = (low | high << 32).to_bytes(8, "little"), []
    for place in range(4):
        chosen = selector >> 4 * place & 15
        byte = data[chosen & 7]
        result.append((0xFF if byte & 0x80 else 0) if chosen & 8 else byte)
    return int.from_bytes(bytes(result), "little")


def pair(word: int) -> torch.Tensor:
    """A register's two values in bf16."""
    halves = [word & 0xFFFF, word >> 16]
    return torch.tensor([h - (h >> 15 << 16) for h in halves], dtype=torch.int16).view(torch.bfloat16)


def multiplied(a: int, b: int) -> int:
    low, high = (pair(a) * pair(b)).view(torch.int16).tolist()
    return (low & 0xFFFF) | (high & 0xFFFF) << 16


INSTRUCTIONS = {
    "and.b32": lambda a, b: a & b,
    "shl.b32": lambda a, b: a << b & WORD,
    "shr.b32": lambda a, b: a >> b,
    "prmt.b32": prmt,
    "lop3.b32": lambda a, b, c, table: (a & b | ~a & c) & WORD if table == 0xCA else None,
    "mul.rn.bf16x2": multiplied,
}


def run(assembly: str, **registers: int) -> dict[str, int]:
    for line in assembly.splitlines():
        name, _, rest = line.rstrip(";").partition(" ")
        if name in INSTRUCTIONS:
            target, *sources = rest.split(", ")
            values = [registers[s] if s in registers else int(s, 0) for s in sources]
            registers[target] = INSTRUCTIONS[name](*values)
        else:
            assert line in ("{", "}") or line.startswith(".reg")
    return registers


@pytest.mark.parametrize("constant", [1.0, 0.0123, -3.5])
def test_every_byte_becomes_its_two_values_times_the_constant(constant: float) -> None:
    scale = torch.tensor(constant).bfloat16()
    bits = int(scale.view(torch.int16)) & 0xFFFF
    values = torch.tensor(NF4).bfloat16() * scale
    for byte in range(256):
        four = [byte, byte ^ 0xFF, (byte * 7 + 3) & 0xFF, 0x8F]
        found = run(_lookup(), **{"$4": int.from_bytes(bytes(four), "little"), "$5": bits | bits << 16})
        for place, own in enumerate(four):  # the earlier value is in the byte's high bits
            assert torch.equal(pair(found[f"${place}"]), values[[own >> 4, own & 15]])
