"""The device that a job runs on, and what the `gpu` resource allows there."""

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import Field

from ernie_pipeline.recipe.sections import Section
from ernie_pipeline.utils.errors import PipelineError


class DeviceLimits(Section):
    """What the resource `gpu` asks for and allows: `kind`, a part of the device's name; memory in GiB; threads."""

    kind: str = ""
    memory_gib: Annotated[float, Field(gt=0)] | None = None
    cpu_threads: Annotated[int, Field(ge=1)] = 1


def choose_device(gpu: dict[str, Any], report: Callable[[str, dict[str, Any]], None]) -> str:
    """ "cuda" where there is one, else "cpu", said aloud; the memory limit set.

    `gpu`: `kind` (a part of the wanted device's name, or ""), `memory_gib` (or None), `cpu_threads`.
    Raises `PipelineError` when the GPU is of another kind.
    """
    import torch  # not for those who only need the limits: the code location opens without it

    if not torch.cuda.is_available():
        torch.set_num_threads(gpu["cpu_threads"])
        report(f"no CUDA device on this machine: using the CPU with {gpu['cpu_threads']} threads", {})
        return "cpu"
    name = torch.cuda.get_device_name()
    if gpu["kind"].lower() not in name.lower():
        raise PipelineError(f"the gpu resource asks for {gpu['kind']!r}, this machine has {name!r}; change gpu.kind")
    if gpu["memory_gib"]:
        total = torch.cuda.get_device_properties(0).total_memory / 2**30
        torch.cuda.set_per_process_memory_fraction(min(1.0, gpu["memory_gib"] / total))
    report(f"using {name}" + (f", at most {gpu['memory_gib']} GiB of it" if gpu["memory_gib"] else ""), {})
    return "cuda"
