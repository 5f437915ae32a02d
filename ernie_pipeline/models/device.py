"""The device that a job runs on, what it may take of it, and how the work is computed there.

A job says its limits where nothing else of the model is loaded: torch is imported when a device is looked for.
"""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from ernie_pipeline.recipe.execution import Execution, ExecutionOverrides, resolve_execution
from ernie_pipeline.recipe.section import Section
from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline.utils.reporter import Reporter


class DeviceLimits(Section):
    """What the resource `gpu` asks for and allows: `kind`, a part of the device's name; memory in GiB; threads."""

    kind: str = ""
    memory_gib: Annotated[float, Field(gt=0)] | None = None
    cpu_threads: Annotated[int, Field(ge=1)] = 1


@dataclass(frozen=True)
class Device:
    """`name` for torch ("cuda", "cpu"), and how the work is computed there. Its memory limit is in force."""

    name: str
    execution: Execution

    @property
    def description(self) -> str:
        """The GPU's name, or the CPU's threads."""
        import torch

        on_gpu = self.name != "cpu"
        return torch.cuda.get_device_name(self.name) if on_gpu else f"CPU, {torch.get_num_threads()} threads"


def choose_device(limits: DeviceLimits, overrides: ExecutionOverrides, report: Reporter) -> Device:
    """ "cuda" where there is one, else "cpu", said aloud; the memory limit set.

    The profile is that of the device and of what it may take, unless `overrides` name one. Raises `PipelineError` when
    the GPU is of another kind.
    """
    import torch

    if not torch.cuda.is_available():
        torch.set_num_threads(limits.cpu_threads)
        report(f"no CUDA device on this machine: using the CPU with {limits.cpu_threads} threads", {})
        return Device("cpu", resolve_execution(overrides, None))
    name = torch.cuda.get_device_name()
    if limits.kind.lower() not in name.lower():
        raise PipelineError(f"the gpu resource asks for {limits.kind!r}, this machine has {name!r}; change gpu.kind")
    total = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory / 2**30
    execution = resolve_execution(overrides, smallest(total, limits.memory_gib, overrides.memory_limit_gib))
    limit = smallest(limits.memory_gib, execution.memory_limit_gib)
    if limit:
        torch.cuda.set_per_process_memory_fraction(min(1.0, limit / total))
    report(f"using {name}" + (f", at most {limit:g} GiB of it" if limit else ""), {})
    return Device("cuda", execution.model_copy(update={"memory_limit_gib": limit}))


def smallest(*limits: float | None) -> float | None:
    """The tightest of several limits, None where there is none."""
    return min((limit for limit in limits if limit), default=None)
