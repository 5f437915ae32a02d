"""Execution: how the work is computed. It changes rounding at most, so it is in no fingerprint, `generator` aside.

A profile per size of device, chosen from the device that is there unless one is named; single values over it, from the
recipe's table `[execution]`, the environment or the launchpad.
"""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from ernie_pipeline.recipe.section import Positive, Section

ProfileName = Literal["cpu", "24gb", "40gb", "80gb"]
Gib = Annotated[float, Field(gt=0)]


GeneratorName = Annotated[str, Field(pattern=r"^(own|vllm|vllm==[0-9][0-9A-Za-z.+!-]*)$")]
"""Which program makes answers: this project's own, or vLLM, of whatever version is installed or of the one named."""


class Execution(Section):
    """How training and generation are computed on a device."""

    micro_batch: Positive = Field(description="documents computed at a time, fewer where memory runs out")
    packing: bool = Field(description="several documents a row instead of padding; the steps stay the same")
    pack_tokens: Positive = Field(
        2048, description="packing: tokens that a row holds at most, its longest document aside"
    )
    memory_limit_gib: Gib | None = Field(None, description="GPU memory that may be taken")
    gradient_checkpointing: bool = Field(description="activations computed twice instead of kept")
    generation_rows: Positive = Field(description="prompts answered at a time, where memory does not decide")
    checkpoint_s: Annotated[float, Field(gt=0)] = Field(300.0, description="seconds between two checkpoints")
    generator: GeneratorName = Field(
        "own", description="what answers for evaluations and solutions; it changes answers, so it is in fingerprints"
    )


class ExecutionOverrides(Section):
    """What is said of execution beforehand: a profile, and single values over it. None: as the profile has it."""

    profile: ProfileName | None = Field(None, description="chosen from the device where absent")
    micro_batch: Positive | None = None
    packing: bool | None = None
    pack_tokens: Positive | None = None
    memory_limit_gib: Gib | None = None
    gradient_checkpointing: bool | None = None
    generation_rows: Positive | None = None
    checkpoint_s: Annotated[float, Field(gt=0)] | None = None
    generator: GeneratorName | None = Field(
        None, description="own, vllm or vllm==VERSION; of the recipe or the environment, resolved before a fingerprint"
    )

    def over(self, other: "ExecutionOverrides") -> "ExecutionOverrides":
        """These values, and those of `other` where there are none here."""
        return ExecutionOverrides(**{**other.said(), **self.said()})

    def said(self) -> dict[str, object]:
        """The values that are there."""
        return self.model_dump(exclude_none=True)


PROFILES: Mapping[ProfileName, Execution] = {
    "cpu": Execution(micro_batch=16, packing=False, gradient_checkpointing=False, generation_rows=128),
    "24gb": Execution(
        micro_batch=8, packing=True, memory_limit_gib=24, gradient_checkpointing=False, generation_rows=16
    ),
    "40gb": Execution(
        micro_batch=8, packing=True, memory_limit_gib=40, gradient_checkpointing=False, generation_rows=32
    ),
    "80gb": Execution(micro_batch=16, packing=True, gradient_checkpointing=False, generation_rows=64),
}
"""The limits of 24 and 40 GiB are an RTX 3090's and an A100-40GB's; a larger card gets all it has."""


def profile_for(gpu_gib: float | None) -> ProfileName:
    """The profile of a device: "cpu" for None, else by the memory of the GPU in GiB, less what its driver keeps."""
    if gpu_gib is None:
        return "cpu"
    return "80gb" if gpu_gib > 70 else "40gb" if gpu_gib > 36 else "24gb"


def resolve_execution(overrides: ExecutionOverrides, gpu_gib: float | None) -> Execution:
    """The execution on a device with this much GPU memory, in GiB; None for a CPU."""
    values = overrides.said()
    profile = PROFILES[overrides.profile or profile_for(gpu_gib)]
    return Execution(**{**profile.model_dump(), **{name: value for name, value in values.items() if name != "profile"}})
