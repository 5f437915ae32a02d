"""The backend around a stand-in for `FastModel` made by PEFT and bitsandbytes: the package itself needs a GPU.

What the stand-in cannot show (Unsloth's kernels, stacks of experts) is in `gpu/test_unsloth_backend.py`.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from ernie_pipeline.demo import BASE
from ernie_pipeline.models.backend import Sampling
from ernie_pipeline.models.documents import document
from ernie_pipeline.models.peft.backend import with_adapter
from ernie_pipeline.models.quantize import quantize_linears
from ernie_pipeline.models.spec import BaseCheckpoint, ModelSpec
from ernie_pipeline.models.unsloth import backend as backend_module
from ernie_pipeline.models.unsloth import training as training_module
from ernie_pipeline.models.unsloth.backend import UnslothBackend, UnslothModel
from ernie_pipeline.models.unsloth.packed_rows import keeps_documents_apart
from ernie_pipeline.recipe.execution import PROFILES
from ernie_pipeline.recipe.sections import Lora, Quantization
from ernie_pipeline.utils.errors import PipelineError

LORA = Lora(rank=4, alpha=8)
DOCUMENTS = [
    document([5 + (number * step) % 700 for number in range(length)], 3) for length, step in ((20, 7), (9, 5), (14, 3))
]


class StandIn:
    """The part of `FastModel` that is used."""

    modes: list[Any]

    def __init__(self) -> None:
        self.modes = []

    def from_pretrained(self, model_name: str, **asked: Any) -> tuple[Any, None]:
        from transformers import AutoModelForCausalLM

        assert asked["use_exact_model_name"]
        model = AutoModelForCausalLM.from_pretrained(model_name, dtype=torch.bfloat16)
        quantize_linears(model, {"type": "nf4", "double": True, "compute_dtype": "bfloat16"}, torch.device("cpu"))
        return model.requires_grad_(False), None

    def get_peft_model(self, model: Any, **asked: Any) -> Any:
        targets = tuple(asked["target_modules"])
        lora = Lora(rank=asked["r"], alpha=asked["lora_alpha"], targets=targets)
        return with_adapter(model, lora, asked["random_state"])

    def for_inference(self, model: Any) -> None:
        self.modes.append("inference")
        model.eval()

    def for_training(self, model: Any, use_gradient_checkpointing: Any) -> None:
        self.modes.append(use_gradient_checkpointing)
        assert model._unsloth_gradient_checkpointing == use_gradient_checkpointing
        model.train()


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    made = StandIn()
    monkeypatch.setattr(backend_module, "fast_model", lambda: made)
    monkeypatch.setattr(training_module, "settle_compilation", lambda: None)
    monkeypatch.setattr(training_module, "version", lambda package: "of the stand-in")
    return made


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dense model with the demo's tokenizer."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "vocab_size": 768,
    }
    folder = tmp_path_factory.mktemp("dense")
    LlamaForCausalLM(LlamaConfig(**sizes, num_key_value_heads=1, eos_token_id=2, pad_token_id=0)).save_pretrained(
        folder
    )
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(BASE / name, folder)
    return folder


@pytest.fixture
def spec(checkpoint: Path) -> ModelSpec:
    base = BaseCheckpoint(name="dense", checkpoint=str(checkpoint))
    return ModelSpec(backend="unsloth", base=base, quantization=Quantization(), lora=LORA)


@pytest.fixture
def adapted(stand_in: StandIn, spec: ModelSpec) -> UnslothModel:
    """With an adapter that changes its logits."""
    model = UnslothBackend().load(spec, "cpu")
    model.add_adapter(LORA, seed=0)
    for name, parameter in model.module.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def loss_by_hand(model: UnslothModel) -> float:
    """The summed loss of the documents, each alone."""
    each = [F.cross_entropy(model.logits(d.ids.tolist())[:-1], d.labels[1:], reduction="sum") for d in DOCUMENTS]
    return torch.stack(each).sum().item()


def test_it_is_loaded_audited_and_its_loss_is_summed(adapted: UnslothModel) -> None:
    rows = adapted.audit(training=True)
    assert {row.part for row in rows} == {"attention", "dense"}
    assert adapted.loss_sum(DOCUMENTS) == pytest.approx(loss_by_hand(adapted), rel=5e-3)
    weights = [torch.full((len(d.ids),), 0.5) for d in DOCUMENTS]
    assert adapted.loss_sum(DOCUMENTS, weights) == pytest.approx(0.5 * loss_by_hand(adapted), rel=5e-3)


@pytest.mark.parametrize("changes", [{}, {"packing": True}, {"micro_batch": 2, "gradient_checkpointing": True}])
def test_a_step_s_gradient_is_the_same_however_it_is_computed(
    adapted: UnslothModel, stand_in: StandIn, changes: dict[str, Any]
) -> None:
    def step(**values: Any) -> tuple[float, torch.Tensor, Any]:
        training = adapted.training(PROFILES["cpu"].model_copy(update=values), [[20, 9, 14]])
        loss = training.forward_backward(DOCUMENTS, 10.0)
        assert loss is not None
        gradients = [p.grad.flatten() for p in training.parameters if p.grad is not None]
        return loss.item(), torch.cat(gradients), training

    loss, gradient, _ = step(micro_batch=1)
    other_loss, other_gradient, training = step(**changes)
    assert loss * 10 == pytest.approx(loss_by_hand(adapted), rel=5e-3)
    assert other_loss == pytest.approx(loss, rel=5e-3)
    assert (gradient - other_gradient).norm() < 0.03 * gradient.norm()
    assert training.facts()["packing"] == bool(changes.get("packing"))
    assert stand_in.modes[-1] == ("unsloth" if changes.get("gradient_checkpointing") else False)


def test_out_of_memory_it_takes_fewer_documents_then_checkpoints(adapted: UnslothModel, stand_in: StandIn) -> None:
    training = adapted.training(PROFILES["cpu"].model_copy(update={"micro_batch": 2}), [[20, 9, 14]])
    assert [training.release_memory() for _ in range(3)] == ["one sample at a time", "gradient checkpointing", ""]
    assert stand_in.modes[-1] == "unsloth"


def test_a_saved_adapter_names_where_the_base_lies_and_is_read_back(
    adapted: UnslothModel, spec: ModelSpec, tmp_path: Path
) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        adapted.save_adapter(folder)
    assert sorted(file.name for file in folders[0].iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    assert all((folders[1] / file.name).read_bytes() == file.read_bytes() for file in folders[0].iterdir())
    config = json.loads((folders[0] / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == spec.base.checkpoint
    again = UnslothBackend().load(spec.model_copy(update={"adapter": folders[0]}), "cpu")
    ids = DOCUMENTS[0].ids.tolist()
    assert torch.equal(again.logits(ids), adapted.logits(ids))
    assert not again.trainable()
    with again.without_adapter():
        assert not torch.equal(again.logits(ids), adapted.logits(ids))


def test_an_adapter_of_another_shape_is_told(adapted: UnslothModel, spec: ModelSpec, tmp_path: Path) -> None:
    adapted.save_adapter(tmp_path / "adapter")
    fewer = {"adapter": tmp_path / "adapter", "lora": Lora(rank=4, alpha=8, targets=("q_proj",))}
    with pytest.raises(PipelineError, match="did not find their place"):
        UnslothBackend().load(spec.model_copy(update=fewer), "cpu")


def test_it_answers_in_the_midst_of_a_training_and_goes_back_to_it(adapted: UnslothModel, stand_in: StandIn) -> None:
    adapted.training(PROFILES["cpu"], [[20]])
    prompts = [[1, 7, 9, 30], [1, 8]]
    found = adapted.generate(prompts, Sampling(max_new_tokens=6), rows=2).tokens
    assert stand_in.modes[-2:] == ["inference", False]
    assert adapted.module.training
    for prompt, answer in zip(prompts, found, strict=True):
        assert answer[0] == adapted.logits(prompt)[-1].argmax()
    assert all(len(answer) == 6 or answer[-1] == 2 for answer in found)


def test_packing_is_refused_to_a_model_that_does_not_heed_positions(
    adapted: UnslothModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert keeps_documents_apart(adapted)
    heeding = type(adapted.base).forward

    def heedless(self: Any, *args: Any, position_ids: Any = None, **given: Any) -> Any:
        return heeding(self, *args, **given)

    monkeypatch.setattr(type(adapted.base), "forward", heedless)
    assert not keeps_documents_apart(adapted)
    training = adapted.training(PROFILES["cpu"].model_copy(update={"packing": True}), [[20]])
    assert not training.facts()["packing"]


@pytest.mark.parametrize("how", ["loading", "adding"])
def test_what_unsloth_refuses_is_told(
    stand_in: StandIn, spec: ModelSpec, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    def refuse(*args: Any, **given: Any) -> None:
        raise ValueError("no\nmore of it")

    model: Callable[[], Any] = lambda: UnslothBackend().load(spec, "cpu")  # noqa: E731
    if how == "loading":
        monkeypatch.setattr(stand_in, "from_pretrained", refuse)
        with pytest.raises(PipelineError, match=r"dense could not be loaded in 4 bits by Unsloth \(no\)"):
            model()
    else:
        loaded = model()
        monkeypatch.setattr(stand_in, "get_peft_model", refuse)
        with pytest.raises(PipelineError, match=r"Unsloth cannot add this adapter to dense \(no\)"):
            loaded.add_adapter(LORA, seed=0)
