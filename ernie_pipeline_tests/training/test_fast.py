"""The packed recipe learns what the padded one learns."""

from typing import Any

import pytest

from ernie_pipeline.recipe.load import load_recipe
from ernie_pipeline.training.resume import copy_weights, set_weights
from ernie_pipeline_tests.training.conftest import adapted_demo, trainer_of


def test_on_the_demo_model_fast_reaches_the_validation_loss_of_seed_after_the_same_samples(
    demo_tokenizer: Any, sums: Any
) -> None:
    """Their own steps and layout; fewer steps, at the demo's learning rate and with its optimizer."""
    demo = {"max_steps": 8, "eval_every": 2, "learning_rate": 3e-3, "optimizer": "adamw_torch"}
    model = adapted_demo(layers=6)
    before, losses, samples = copy_weights(model), {}, {}
    for name in ("fast", "seed"):
        set_weights(model, before)
        settings = load_recipe(name).training.model_dump(mode="json") | demo | {"gradient_checkpointing": False}
        trainer = trainer_of(model, demo_tokenizer, sums[:32], sums[32:], settings)
        trainer.fit()
        losses[name] = [entry["eval_loss"] for entry in trainer.progress.curve if "eval_loss" in entry]
        samples[name] = sum(map(len, trainer.plan.steps))
    assert samples["fast"] == samples["seed"] == 8 * 8
    assert losses["fast"] == pytest.approx(losses["seed"], rel=0.02)
    assert losses["seed"][-1] < 0.8 * losses["seed"][0]  # it was learning
