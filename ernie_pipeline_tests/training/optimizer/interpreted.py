"""Our step of the 8-bit AdamW in Triton's interpreter, on a CPU, against one in torch's operations that looks for the
nearest code.

    TRITON_INTERPRET=1 python -m ernie_pipeline_tests.training.optimizer.interpreted

Prints, as JSON, by step: how far values (relatively) and constants are from torch's, and how many codes are others.
"""

import json
from typing import Any

import torch
from bitsandbytes.functional import create_dynamic_map
from torch.nn import functional as F

from ernie_pipeline.training.optimizer.adamw_8bit import BLOCK, step

SIZE = 40 * BLOCK + 100
BLOCKS = 41
CONFIG = {"lr": 1e-2, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01}


def fresh() -> dict[str, Any]:
    codes = {f"state{i}": torch.zeros(SIZE, dtype=torch.uint8) for i in (1, 2)}
    maps = {"qmap1": create_dynamic_map(signed=True), "qmap2": create_dynamic_map(signed=False)}
    return {"step": 0, **codes, **maps, "absmax1": torch.zeros(BLOCKS), "absmax2": torch.zeros(BLOCKS)}


def by_block(values: torch.Tensor) -> torch.Tensor:
    return F.pad(values, (0, BLOCKS * BLOCK - SIZE)).view(BLOCKS, BLOCK)


def nearest(values: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
    """The code nearest to each value [blocks, BLOCK] over the largest of its block; below 0 none that is 0."""
    largest = values.abs().amax(dim=1, keepdim=True)
    scaled = values / largest.where(largest > 0, 1.0)
    found = torch.searchsorted((codes[1:].double() + codes[:-1]) / 2, scaled.double())
    zero = int((codes == 0).nonzero())
    return torch.where((scaled < 0) & (found == zero), zero - 1, found).flatten()[:SIZE].to(torch.uint8)


def in_torch(values: torch.Tensor, gradients: torch.Tensor, state: dict[str, Any]) -> None:
    (beta1, beta2), number = CONFIG["betas"], state["step"]
    first, second = (
        by_block(state[f"qmap{i}"][state[f"state{i}"].long()]) * state[f"absmax{i}"][:, None] for i in (1, 2)
    )
    first = first * beta1 + (1 - beta1) * by_block(gradients)
    second = second * beta2 + (1 - beta2) * by_block(gradients) ** 2
    mean, root = first / (1 - beta1**number), (second / (1 - beta2**number)).sqrt()
    values -= CONFIG["lr"] * (mean / (root + CONFIG["eps"])).flatten()[:SIZE]
    values *= 1 - CONFIG["lr"] * CONFIG["weight_decay"]
    for i, own in ((1, first), (2, second)):
        state[f"state{i}"], state[f"absmax{i}"] = nearest(own, state[f"qmap{i}"]), own.abs().amax(dim=1)


def main() -> None:
    torch.manual_seed(0)
    values = torch.randn(SIZE)
    wanted, state, wanted_state, told = values.clone(), fresh(), fresh(), []
    for number in range(1, 5):
        gradients = torch.randn(SIZE) * 10 ** torch.empty(SIZE).uniform_(-4, 0)
        gradients[: BLOCK * number] = 0
        state["step"] = wanted_state["step"] = number
        step(values, gradients, state, CONFIG)
        in_torch(wanted, gradients, wanted_state)
        apart = [float((values - wanted).norm() / wanted.norm())]
        apart += [float((state[f"absmax{i}"] - wanted_state[f"absmax{i}"]).abs().max()) for i in (1, 2)]
        codes = sum(int((state[f"state{i}"] != wanted_state[f"state{i}"]).sum()) for i in (1, 2))
        told.append({"apart": max(apart), "codes": codes})
    print(json.dumps(told))


if __name__ == "__main__":
    main()
