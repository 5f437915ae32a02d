"""For the contract test (`test_contract.py`): the backends, and how each figure is made by hand."""

from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from ernie_pipeline.demo import BASE
from ernie_pipeline.models.backend import BackendName, LoadedModel, TrainingBackend
from ernie_pipeline.models.documents import Document, document
from ernie_pipeline.models.spec import BaseCheckpoint, ModelSpec
from ernie_pipeline.recipe.execution import PROFILES, Execution
from ernie_pipeline.recipe.sections import Lora, Quantization

LORA = Lora(rank=4, alpha=8)
LENGTHS = (17, 40, 9, 33, 25, 12)
LAYERS_ON_A_CPU = 3
"""Of the demo model's six: a dense one and two of experts."""
ADAPTER_PARAMETERS = {
    ("peft", "cpu"): 123_648,
    ("grouped", "cpu"): 123_648,
    ("peft", "cuda"): 279_936,
    ("grouped", "cuda"): 279_936,
    ("unsloth", "cuda"): 238_976,
}
"""Of rank 4 on every target; Unsloth's gate and up projections of an expert share their A."""
LOOSE_ON_THE_GPU = {"peft": 5e-2, "grouped": 2e-2, "unsloth": 2e-2}
"""In bfloat16. Backend peft's products are of other kernels for other numbers of rows, and what they round otherwise
sends a few tokens to other experts: 2.2 % of the logits' norm and 13.4 % of the gradient's were measured on an H200."""
DEMO = BaseCheckpoint(name="demo", checkpoint=str(BASE), version="the demo's")
IDS = list(range(5, 45))
END = 2


class Subject:
    """A backend on a device, and how exactly it computes there."""

    def __init__(
        self,
        name: BackendName,
        device: str,
        folder: Path,
        base: BaseCheckpoint,
        make: Callable[[ModelSpec], LoadedModel],
    ):
        self.name, self.device, self.make = name, device, make
        self.on_gpu = device == "cuda"
        self.loose = LOOSE_ON_THE_GPU[name] if self.on_gpu else 1e-5
        """Relative: bfloat16 in batches of other shapes; fp32."""
        dtype = "bfloat16" if self.on_gpu else "float32"
        self.spec = ModelSpec(
            backend=name,
            base=base,
            quantization=Quantization(compute_dtype=dtype, double=self.on_gpu),
            lora=LORA,
            quantized_bases=folder,
        )
        self.base = make(self.spec)
        """For tests that only read it."""

    def load(self, adapter: Path | None = None) -> LoadedModel:
        """A model of its own."""
        return self.make(self.spec.model_copy(update={"adapter": adapter}))

    def demo(self) -> LoadedModel:
        """The whole demo model, which has learnt to answer and to end."""
        return self.make(self.spec.model_copy(update={"base": DEMO}))

    def fresh(self, seed: int = 0) -> LoadedModel:
        """With an adapter that changes nothing yet."""
        model = self.load()
        model.add_adapter(LORA, seed)
        return model

    def adapted(self) -> LoadedModel:
        """With an adapter that changes the logits."""
        model = self.fresh()
        change(model)
        return model

    def near(self, value: float) -> Any:
        """Equal but for rounding."""
        return pytest.approx(value, rel=self.loose, abs=self.loose)


def on_the_gpu(name: str) -> Any:
    marks = [
        pytest.mark.gpu,
        pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, and this machine has none"),
    ]
    if name == "unsloth":
        marks.append(pytest.mark.skipif(find_spec("unsloth") is None, reason="needs the package unsloth"))
    return pytest.param((name, "cuda"), marks=marks, id=f"{name}-cuda")


SUBJECTS = [
    pytest.param(("peft", "cpu"), id="peft-cpu"),
    pytest.param(("grouped", "cpu"), id="grouped-cpu"),
    *map(on_the_gpu, ("peft", "grouped", "unsloth")),
]


def grouped_on_a_cpu(folder: Path, spec: ModelSpec) -> LoadedModel:
    """As `GroupedBackend.load`, whose place for quantized bases is asked for a CUDA device."""
    from ernie_pipeline_tests.models.grouped.demo import FLAT, grouped_demo, read_demo

    own = folder / spec.base.name
    if own.exists():
        from ernie_pipeline.models.grouped.backend import GroupedModel

        model = GroupedModel(spec, "cpu", read_demo(own, FLAT, Path(spec.base.checkpoint)))
    else:
        own.mkdir()
        model = grouped_demo(own, spec)
    if spec.adapter:
        model.read_adapter(spec.adapter)
    model.audit(training=False)
    return model


@torch.no_grad()
def change(model: LoadedModel) -> None:
    """Give every B other values than zero, the same ones for the same shapes."""
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.trainable().items():
        if "lora_B" in name:
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.04)


def documents(*lengths: int, first_counted: int = 4) -> list[Document]:
    generator = torch.Generator().manual_seed(sum(lengths))
    return [document(torch.randint(5, 700, (n,), generator=generator).tolist(), first_counted) for n in lengths]


DOCUMENTS = documents(*LENGTHS)
ONES = [torch.ones(n) for n in LENGTHS]
"""Weights that change nothing."""
WEIGHTS = [torch.linspace(-1.0, 2.0, n) * (torch.arange(n) % 3 != 0) for n in LENGTHS]
"""Some negative, some zero."""


def by_hand(
    model: LoadedModel,
    own: Sequence[Document],
    weights: Sequence[torch.Tensor] | None = None,
    temperature: float = 1.0,
) -> float:
    """The loss's sum from the logits of each document alone."""
    total = 0.0
    for number, losses in enumerate(losses_by_hand(model, own, temperature)):
        total += float((losses * (1.0 if weights is None else weights[number])).sum())
    return total


def losses_by_hand(model: LoadedModel, own: Sequence[Document], temperature: float = 1.0) -> list[torch.Tensor]:
    """Each token's loss [tokens], 0 for those that are not counted."""
    logits = [model.logits(each.ids.tolist())[:-1] / temperature for each in own]
    return [
        F.pad(F.cross_entropy(of_document, each.labels[1:], reduction="none"), (1, 0))
        for of_document, each in zip(logits, own, strict=True)
    ]


def size_by_hand(model: LoadedModel, own: Sequence[Document], weights: Sequence[torch.Tensor] | None) -> float:
    """The same of the magnitudes: what an error is measured against where terms of both signs cancel."""
    return by_hand(model, own, None if weights is None else [each.abs() for each in weights])


def values_of(model: LoadedModel) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().cpu().clone() for name, parameter in model.trainable().items()}


def execution(subject: Subject, **changes: Any) -> Execution:
    """Three documents at a time, in whatever way; the profile is the card's that is there."""
    usual = PROFILES["24gb" if subject.on_gpu else "cpu"].model_dump()
    usual |= {"micro_batch": 3, "gradient_checkpointing": False, "memory_limit_gib": None}
    return Execution(**{**usual, **changes})


def trained(model: LoadedModel, asked: Execution) -> TrainingBackend:
    return model.training(asked, [LENGTHS] * 4)


def gradient(backend: TrainingBackend) -> torch.Tensor:
    """All of it, as one vector; parameters without one have zeros."""
    zero = torch.zeros_like
    return torch.cat([(zero(p) if p.grad is None else p.grad).flatten() for p in backend.parameters]).float().cpu()


def step(
    backend: TrainingBackend,
    own: Sequence[Document],
    num_tokens: float,
    weights: Sequence[torch.Tensor] | None = None,
    temperature: float = 1.0,
) -> tuple[float, torch.Tensor]:
    """Loss and gradient of a step."""
    loss = backend.forward_backward(own, num_tokens, weights, temperature)
    assert loss is not None
    assert loss.shape == ()
    assert not loss.requires_grad
    return loss.item(), gradient(backend)


@torch.no_grad()
def within(backend: TrainingBackend, named: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Where in the backend's parameters the named ones lie: ones there, else zeros."""
    before = [parameter.clone() for parameter in backend.parameters]
    for parameter in named:
        parameter += 1
    masks = [(now != then).float() for now, then in zip(backend.parameters, before, strict=True)]
    for now, then in zip(backend.parameters, before, strict=True):
        now.copy_(then)
    return masks


def greedy(model: LoadedModel, prompt: Sequence[int], number: int) -> Iterator[tuple[int, float]]:
    """Each next token, with how far its logit is above the next best one's."""
    ids = list(prompt)
    for _ in range(number):
        best = model.logits(ids)[-1].topk(2)
        ids.append(int(best.indices[0]))
        yield ids[-1], float(best.values[0] - best.values[1])
        if ids[-1] == END:
            return
