"""The demo model with a fresh adapter, loaded once, and trainers of it."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ernie_pipeline.recipe.sections import Lora, Quantization, Training

MakeTrainer = Callable[..., Any]
FP32 = Quantization(compute_dtype="float32", double=False).model_dump(mode="json")


@pytest.fixture(scope="session")
def demo_tokenizer() -> Any:
    from ernie_pipeline.demo import BASE
    from ernie_pipeline.models.checkpoint.tokenizer import load_tokenizer

    return load_tokenizer(str(BASE))


def adapted_demo(layers: int) -> Any:
    """Its first layers, in 4 bits, with a fresh adapter."""
    import torch

    from ernie_pipeline.demo import BASE
    from ernie_pipeline.models.peft import backend as peft_engine

    torch.set_num_threads(1)
    base = peft_engine.load_base(str(BASE), None, FP32, "cpu")
    base.model.layers = base.model.layers[:layers]
    base.config.num_hidden_layers = layers
    return peft_engine.add_adapter(base, Lora(rank=4, alpha=8).model_dump(mode="json"), seed=0)


@pytest.fixture(scope="session")
def demo_adapter() -> Any:
    """A dense layer and one of experts, and an adapter that changes the logits: all of it gets a gradient."""
    import torch

    model = adapted_demo(layers=2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.02)
    return model


@pytest.fixture(scope="session")
def grouped_adapter(
    demo_adapter: Any, packed_short: Path, short_base: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Any:
    """The same layers and adapter as engine `unsloth` has them."""
    from ernie_pipeline.models.checkpoint.adapter_file import read_into
    from ernie_pipeline.models.grouped import backend as unsloth_engine
    from ernie_pipeline.models.peft import backend as peft_engine
    from ernie_pipeline_tests.models.grouped.demo import FLAT, LORA, read_demo

    folder = tmp_path_factory.mktemp("adapter")
    peft_engine.save_adapter(demo_adapter, folder, "demo", None)
    model = unsloth_engine.add_adapter(read_demo(packed_short, FLAT, Path(short_base["checkpoint"])), LORA, seed=0)
    read_into(model, folder)
    return model


def trainer_of(
    model: Any,
    tokenizer: Any,
    rows: Any,
    eval_rows: Any,
    settings: dict[str, Any],
    report: Callable[[str, dict[str, Any]], None] = lambda line, values: None,
    checkpoints: Path | None = None,
    save_every_s: float = 300.0,
    end_to_end: Any = None,
    ranks: Any = None,
) -> Any:
    """A trainer on a CPU, of one process unless there are `ranks`; `settings` is a whole section training."""
    from ernie_pipeline.training.config import trainer_config
    from ernie_pipeline.training.ranks import Ranks
    from ernie_pipeline.training.resume import Saved
    from ernie_pipeline.training.schedule.order import Plan
    from ernie_pipeline.training.trainer import AdapterTrainer

    plan = Plan(settings, rows, eval_rows)
    return AdapterTrainer(
        model,
        tokenizer,
        trainer_config(settings, len(plan.steps), bf16=False, device="cpu"),
        plan,
        ranks=ranks or Ranks(),
        saved=Saved(str(checkpoints) if checkpoints else None, repr(settings), Ranks(), report),
        report=report,
        save_every_s=save_every_s,
        end_to_end=end_to_end,
    )


@pytest.fixture
def make_trainer(demo_adapter: Any, demo_tokenizer: Any, sums: Any) -> Iterator[MakeTrainer]:
    """Trainers of that model, see `trainers_of`."""
    yield from trainers_of(demo_adapter, demo_tokenizer, sums)


@pytest.fixture
def make_grouped_trainer(grouped_adapter: Any, demo_tokenizer: Any, sums: Any) -> Iterator[MakeTrainer]:
    """Trainers of the same model as engine `unsloth` has it, whose documents lie end to end."""
    from ernie_pipeline.models.grouped import backend as unsloth_engine

    yield from trainers_of(grouped_adapter, demo_tokenizer, sums, unsloth_engine.end_to_end)


def trainers_of(model: Any, tokenizer: Any, sums: Any, its_end_to_end: Any = None) -> Iterator[MakeTrainer]:
    """Makes trainers of `model` on rows of `sums`; at the end it is as it was. `said` gets what they report.

    By default 16 rows to train on, 4 to evaluate, and no checkpoints.
    """
    from ernie_pipeline.training.resume import copy_weights, set_weights

    before = copy_weights(model)

    def as_it_was() -> None:
        model.zero_grad()
        set_weights(model, before)
        if model.is_gradient_checkpointing:
            model.gradient_checkpointing_disable()

    def make(
        said: list[str] | None = None,
        *,
        report: Callable[[str, dict[str, Any]], None] | None = None,
        eval_rows: Any = None,
        checkpoints: Path | None = None,
        save_every_s: float = 300.0,
        end_to_end: Any = its_end_to_end,
        ranks: Any = None,
        **settings: Any,
    ) -> Any:
        as_it_was()
        recipe = Training(optimizer="adamw_torch", gradient_checkpointing=False).model_dump(mode="json") | settings
        tell = report or (lambda line, values: said.append(line) if said is not None else None)
        rows = sums[:16], eval_rows or sums[16:20]
        return trainer_of(model, tokenizer, *rows, recipe, tell, checkpoints, save_every_s, end_to_end, ranks)

    yield make
    as_it_was()


@pytest.fixture(scope="session")
def sums(demo_tokenizer: Any) -> Any:
    """40 rows of 30 to 90 tokens: sums of two to nine terms."""
    from ernie_pipeline.models.checkpoint.tokenizer import prompt_text, token_ids
    from ernie_pipeline.training.rows import Row

    rng, rows = random.Random(1), []
    for _ in range(40):
        terms = [rng.randint(10, 99) for _ in range(rng.randint(2, 9))]
        question = f"What is {' + '.join(map(str, terms))}?"
        texts = prompt_text(demo_tokenizer, [{"role": "user", "content": question}]), f"\\boxed{{{sum(terms)}}}</s>"
        prompt, completion = token_ids(demo_tokenizer, texts)
        rows.append(Row(prompt + completion, len(prompt)))
    return rows


def adapter_bytes(out: Path) -> bytes:
    """The saved adapter."""
    return (out / "adapter" / "adapter_model.safetensors").read_bytes()
