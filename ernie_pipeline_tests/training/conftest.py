"""The demo model's first layers with an adapter, loaded once by each backend, and trainers of them."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ernie_pipeline.recipe.execution import PROFILES
from ernie_pipeline.recipe.sections import Training
from ernie_pipeline_tests.models.grouped.capturer import capturer

__all__ = ["capturer"]

MakeTrainer = Callable[..., Any]


@pytest.fixture(scope="session")
def demo_adapter(short_spec: Any) -> Any:
    """Backend `peft`: a dense layer and one of experts, and an adapter that changes the logits."""
    import torch

    from ernie_pipeline.models.peft.backend import PeftBackend

    torch.set_num_threads(1)
    loaded = PeftBackend().load(short_spec, "cpu")
    loaded.add_adapter(short_spec.lora, seed=0)
    with torch.no_grad():
        for name, parameter in loaded.trainable().items():
            if "lora_B" in name:
                parameter.normal_(std=0.02)
    return loaded


@pytest.fixture(scope="session")
def grouped_adapter(demo_adapter: Any, short_spec: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The same layers and adapter as backend `grouped` has them."""
    from ernie_pipeline.models.checkpoint.adapter_file import read_into
    from ernie_pipeline_tests.models.grouped.demo import grouped_demo

    folder = tmp_path_factory.mktemp("adapter")
    demo_adapter.save_adapter(folder)
    loaded = grouped_demo(tmp_path_factory.mktemp("quantized"), short_spec)
    loaded.add_adapter(short_spec.lora, seed=0)
    read_into(loaded.module, folder)
    return loaded


def trainer_of(
    loaded: Any,
    rows: Any,
    eval_rows: Any,
    settings: Training,
    report: Callable[[str, dict[str, Any]], None] = lambda line, values: None,
    checkpoints: Path | None = None,
    ranks: Any = None,
    execution: dict[str, Any] | None = None,
) -> Any:
    """A trainer on a CPU, of one process unless there are `ranks`."""
    from ernie_pipeline.training.config import trainer_config
    from ernie_pipeline.training.ranks import Ranks
    from ernie_pipeline.training.resume import Saved
    from ernie_pipeline.training.schedule.order import Plan
    from ernie_pipeline.training.trainer import AdapterTrainer

    plan = Plan(settings, rows, eval_rows)
    return AdapterTrainer(
        loaded,
        trainer_config(settings, len(plan.steps), device="cpu"),
        plan,
        ranks=ranks or Ranks(),
        saved=Saved(checkpoints, repr(settings), ranks or Ranks(), report),
        report=report,
        execution=PROFILES["cpu"].model_copy(update=execution or {}),
    )


@pytest.fixture
def make_trainer(demo_adapter: Any, sums: Any) -> Iterator[MakeTrainer]:
    """Trainers of that model, see `trainers_of`."""
    yield from trainers_of(demo_adapter, sums)


@pytest.fixture
def make_grouped_trainer(grouped_adapter: Any, sums: Any) -> Iterator[MakeTrainer]:
    """Trainers of the same model as backend `grouped` has it."""
    yield from trainers_of(grouped_adapter, sums)


def trainers_of(loaded: Any, sums: Any) -> Iterator[MakeTrainer]:
    """Makes trainers of `loaded` on rows of `sums`; at the end it is as it was. `said` gets what they report.

    By default 16 rows to train on, 4 to evaluate, 8 samples a step, and no checkpoints. Other keywords are the recipe's
    section training.
    """
    from ernie_pipeline.models.copies import copy_to_cpu
    from ernie_pipeline.training.resume import set_weights

    before = copy_to_cpu(loaded.trainable())

    def as_it_was() -> None:
        loaded.module.zero_grad()
        set_weights(loaded.trainable(), before)
        loaded.module.eval()
        if loaded.module.is_gradient_checkpointing:
            loaded.module.gradient_checkpointing_disable()

    def make(
        said: list[str] | None = None,
        *,
        report: Callable[[str, dict[str, Any]], None] | None = None,
        eval_rows: Any = None,
        checkpoints: Path | None = None,
        ranks: Any = None,
        execution: dict[str, Any] | None = None,
        **settings: Any,
    ) -> Any:
        as_it_was()
        recipe = Training(**{"optimizer": "adamw_torch", **settings})
        tell = report or (lambda line, values: said.append(line) if said is not None else None)
        rows = sums[:16], eval_rows or sums[16:20]
        return trainer_of(loaded, *rows, recipe, tell, checkpoints, ranks, execution)

    yield make
    as_it_was()


@pytest.fixture(scope="session")
def sums(demo_adapter: Any) -> Any:
    """40 rows of 30 to 90 tokens: sums of two to nine terms."""
    from ernie_pipeline.models.checkpoint.tokenizer import prompt_text, token_ids
    from ernie_pipeline.training.rows import Row

    rng, rows, tokenizer = random.Random(1), [], demo_adapter.tokenizer
    for _ in range(40):
        terms = [rng.randint(10, 99) for _ in range(rng.randint(2, 9))]
        question = f"What is {' + '.join(map(str, terms))}?"
        texts = prompt_text(tokenizer, [{"role": "user", "content": question}]), f"\\boxed{{{sum(terms)}}}</s>"
        prompt, completion = token_ids(tokenizer, texts)
        rows.append(Row(prompt + completion, len(prompt)))
    return rows


def adapter_bytes(out: Path) -> bytes:
    """The saved adapter."""
    return (out / "adapter" / "adapter_model.safetensors").read_bytes()


def weights_of(trainer: Any) -> Any:
    """Its adapter as one vector."""
    import torch

    return torch.cat([value.detach().flatten().clone() for value in trainer.loaded.trainable().values()])
