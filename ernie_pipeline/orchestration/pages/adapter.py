"""The page of an adapter: how its training went."""

from typing import Any

import dagster as dg

from ernie_pipeline.orchestration.pages.sketch import Line, curves
from ernie_pipeline.orchestration.pages.tables import table
from ernie_pipeline.orchestration.plots import loss_curve, reward_curve
from ernie_pipeline.orchestration.words import duration, figure, rounded
from ernie_pipeline.store.artifacts import Artifact
from ernie_pipeline.utils.shares import as_shown, percent

Curve = list[dict[str, float]]


def show_adapter(artifact: Artifact) -> dict[str, Any]:
    """What is told of an artifact with curve.json, parameters.json and reports/run.json."""
    run, curve = artifact.json("reports/run.json"), artifact.json("curve.json")
    return {
        **(_rewards(run, curve) if run.get("method") == "grpo" else _losses(curve)),
        "training": _in_a_sentence(run),
        "trainable parameters": figure(run["trainable_parameters"]),
        "4-bit base parameters": figure(run["four_bit_parameters"]),
        "backend and device": as_shown(f"{run['backend']}, {run['device']}"),
        "step of the adapter": run["kept_step"],
        "padding": percent(run["padding_share"]),
        "tokens per second (median)": rounded(run["tokens_per_s"]),
        **({"resumed after steps": ", ".join(map(str, run["resumed_from"]))} if run["resumed_from"] else {}),
        **({"peak GPU memory (GiB)": rounded(run["peak_gpu_gib"])} if run["peak_gpu_gib"] else {}),
        "parameters per target": table(_target(row) for row in artifact.json("parameters.json")),
        "execution": table({"setting": name, "value": value} for name, value in run["execution"].items()),
    }


def _in_a_sentence(run: dict[str, Any]) -> str:
    return (
        f"{figure(run['steps'])} steps, {figure(run['samples'])} samples and {figure(run['tokens'])} tokens "
        f"in {duration(run['seconds'])}"
    )


def _target(row: dict[str, Any]) -> dict[str, Any]:
    """Parts and targets in one column, so that the table is narrow enough."""
    return {
        "target": f"{row['part']} {row['target']}",
        "modules": row["modules"],
        "base parameters": row["base_parameters"],
        "trained": row["trainable_parameters"],
    }


def _losses(curve: Curve) -> dict[str, Any]:
    training, validation = values(curve, "loss"), values(curve, "loss_objective")
    lines = [
        Line("training", points(curve, "loss"), figure(training[-1])),
        Line("validation", points(curve, "loss_objective"), figure(validation[-1])),
        Line("learning rate", points(curve, "learning_rate"), "", scale="learning rate"),
    ]
    return {
        "losses": dg.MetadataValue.md(curves("losses and learning rate", lines)),
        "final training loss": rounded(training[-1]),
        "final validation loss": rounded(validation[-1]),
        "best validation loss": rounded(min(validation)),
        "losses and learning rate": dg.MetadataValue.md(loss_curve(curve)),
    }


def _rewards(run: dict[str, Any], curve: Curve) -> dict[str, Any]:
    shares = {
        "solved_at_start": "solved at the start (first tenth of the batches)",
        "solved_at_end": "solved at the end (last tenth)",
    }
    names = {
        "groups_skipped": "groups skipped (all answers alike)",
        "groups_trained": "groups trained on",
        "steps_without_update": "steps without an update",
        "mismatch_kl": "mismatch KL of sampler and trainer (mean)",
        "highest_mismatch_kl": "mismatch KL of sampler and trainer (highest)",
        "tokens_sampled": "tokens sampled",
    }
    accuracies, rewards = values(curve, "accuracy"), values(curve, "reward")
    lines = [
        Line("reward", points(curve, "reward"), figure(rewards[-1]) if rewards else ""),
        Line("set aside", points(curve, "accuracy"), percent(accuracies[-1]) if accuracies else ""),
    ]
    return {
        "rewards": dg.MetadataValue.md(curves("reward and accuracy on the problems set aside", lines)),
        **{words: percent(run[name]) for name, words in shares.items() if name in run},
        **{words: figure(run[name]) for name, words in names.items() if name in run},
        **({"sampling": duration(run["sampling_s"])} if "sampling_s" in run else {}),
        **({"best accuracy on problems set aside": percent(max(accuracies))} if accuracies else {}),
        **({"final accuracy on problems set aside": percent(accuracies[-1])} if accuracies else {}),
        "reward curve": dg.MetadataValue.md(reward_curve(curve)),
    }


def values(curve: Curve, name: str) -> list[float]:
    """What the entries that have it say of `name`."""
    return [entry[name] for entry in curve if name in entry]


def points(curve: Curve, name: str) -> list[tuple[float, float]]:
    """The same over the steps."""
    return [(entry["step"], entry[name]) for entry in curve if name in entry]
