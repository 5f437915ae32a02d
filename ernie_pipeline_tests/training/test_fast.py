"""The packed recipe learns what the padded one learns."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ernie_pipeline.recipe import load_recipe
from ernie_pipeline.training.train import train

MakeJob = Callable[..., dict[str, Any]]


def test_on_the_demo_model_fast_reaches_the_validation_loss_of_seed_after_the_same_samples(make_job: MakeJob) -> None:
    """Their own steps and layout; fewer steps, at the demo's learning rate and with its optimizer."""
    demo = {"max_steps": 8, "eval_every": 2, "learning_rate": 3e-3, "optimizer": "adamw_torch"}
    losses, runs = {}, {}
    for name in ("seed", "fast"):
        job = make_job(name)
        job["training"] = load_recipe(name).training.model_dump(mode="json") | demo
        train(job, lambda line, values: None)
        curve = json.loads((Path(job["out"]) / "curve.json").read_text())
        losses[name] = [entry["eval_loss"] for entry in curve if "eval_loss" in entry]
        runs[name] = json.loads((Path(job["out"]) / "reports" / "run.json").read_text())
    assert runs["fast"]["samples"] == runs["seed"]["samples"] == 8 * 8
    assert runs["fast"]["padding_share"] == 0
    assert losses["fast"] == pytest.approx(losses["seed"], rel=0.02)
    assert losses["seed"][-1] < 0.8 * losses["seed"][0]  # it was learning
