"""The adapter's parameters and gradients as one long vector each: one kernel steps, clips or clears all of them.

bitsandbytes' optimizers wait for the GPU after each tensor, and an adapter on experts has hundreds of them.
"""

from collections.abc import Sequence

import torch


class FlatParameters:
    """Takes over the memory of `parameters`, which become views of `values`, as their gradients do of its gradient."""

    def __init__(self, parameters: Sequence[torch.nn.Parameter]):
        self.parameters = list(parameters)
        self.values = torch.nn.Parameter(torch.cat([parameter.detach().flatten() for parameter in self.parameters]))
        self.gradients = torch.zeros_like(self.values)
        sizes = [parameter.numel() for parameter in self.parameters]
        for parameter, part in zip(self.parameters, torch.split(self.values.detach(), sizes), strict=True):
            parameter.data = part.view_as(parameter)
        parts = zip(self.parameters, torch.split(self.gradients, sizes), strict=True)
        self.parts = [part.view_as(parameter) for parameter, part in parts]

    def clear_gradients(self) -> None:
        """Zero gradients, in the same memory each time."""
        self.gradients.zero_()
        self.values.grad = self.gradients
        for parameter, part in zip(self.parameters, self.parts, strict=True):
            parameter.grad = part


def step_without_waiting() -> None:
    """From now on bitsandbytes' optimizers do not wait for the GPU after a tensor's step, in this process.

    They do so for the sake of the paged ones, which no recipe has; without it the next step is prepared while the GPU
    still works on this one.
    """
    from bitsandbytes.optim import optimizer

    optimizer.sync_gpu = lambda tensor: None
