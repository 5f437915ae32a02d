import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ernie_pipeline.demo import BASE
from ernie_pipeline.demo.problems import INSTRUCTION
from ernie_pipeline.models.checkpoint.version import checkpoint_version
from ernie_pipeline.models.spec import BaseCheckpoint, ModelSpec
from ernie_pipeline.recipe.sections import Gate, Lora, Quantization
from ernie_pipeline.recipe.settings import sqlite_uri
from ernie_pipeline.registry.gate import Candidate
from ernie_pipeline.registry.lineage import Link
from ernie_pipeline.registry.load_back import LoadBackRequest, LoadedBack, load_back
from ernie_pipeline.registry.model_card import model_card
from ernie_pipeline.registry.provenance import predicate
from ernie_pipeline.registry.register import register
from ernie_pipeline.registry.registration import Registration, RegistrationRequest
from ernie_pipeline.registry.run_log import DatasetFiles

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

QUESTION = "Compute 12 + 30."
ACCURACY = {"base": 0.85, "adapter": 0.9}
ANSWERS = {"base": "It is 41.", "adapter": "It is 42."}
SPLIT = "sha256:" + "d" * 64
PNG = b"\x89PNG\r\n\x1a\n"
COMPARISON = {"gain": 0.05, "gain_low": 0.02, "gain_high": 0.08, "p_value": 0.001}
SPEC = ModelSpec(
    backend="peft",
    base=BaseCheckpoint(name="demo", checkpoint=str(BASE), version=checkpoint_version(BASE)),
    quantization=Quantization(),
    lora=Lora(rank=4, alpha=8),
)
DEMO, LORA = SPEC.base.model_dump(mode="json"), SPEC.lora.model_dump(mode="json")
QUANTIZATION = SPEC.quantization.model_dump(mode="json")
TARGETS = [
    {
        "part": "attention",
        "target": "q_proj",
        "modules": 6,
        "four_bit_parameters": 393216,
        "lora_parameters": 12288,
    }
]


def provenance(adapter_version: str) -> dict[str, Any]:
    """Of a registration that read an adapter and its split."""
    versions = {"math_split": SPLIT, "qlora_adapter": adapter_version}
    return predicate([Link(name, its, ["registered_model"]) for name, its in versions.items()], {}, "f" * 16, "r1")


@pytest.fixture(scope="session")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A small adapter of the demo base that changes its answers, and the logits that it has in memory."""
    import torch

    from ernie_pipeline.models.peft.backend import PeftBackend

    folder = tmp_path_factory.mktemp("trained") / "adapter"
    model = PeftBackend().load(SPEC, "cpu")
    model.add_adapter(SPEC.lora, seed=0)
    for name, parameter in model.trainable().items():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    ids = [1, 20, 30, 40]
    logits = model.logits(ids)[-1]
    with model.without_adapter():
        assert (logits - model.logits(ids)[-1]).abs().max() > 0.05
    model.save_adapter(folder)
    top = logits.topk(20)
    pairs = zip(top.indices.tolist(), top.values.tolist(), strict=True)
    probe = {"input_ids": ids, "top": [list(pair) for pair in pairs]}
    return folder, probe


@pytest.fixture(scope="session")
def card() -> str:
    measured = {"rows": 500, "accuracy": 0.9, "accuracy_low": 0.87, "accuracy_high": 0.92, "loss_completion": 0.5123}
    return model_card(
        name="ernie-math",
        license="apache-2.0",
        base=DEMO,
        quantization=QUANTIZATION,
        lora=LORA,
        data={
            "name": "demo",
            "source": "/somewhere/private/rows.jsonl",
            "version": "sha256:" + "d" * 64,
            "license": "MIT",
            "on": "answers",
            "train_rows": 2500,
            "eval_rows": 500,
        },
        training={"steps": 100, "seconds": 42.0},
        evaluation={"base": measured | {"accuracy": 0.85}, "adapter": measured},
        comparison=COMPARISON,
        targets=TARGETS,
        question=QUESTION,
    )


@pytest.fixture(scope="session")
def make_request(
    tmp_path_factory: pytest.TempPathFactory, adapter: tuple[Path, dict[str, Any]], card: str
) -> Callable[..., RegistrationRequest]:
    """A request to register the adapter in a database of its own, with whatever is to be different.

    The folder has a hard name: an address escapes each of its characters.
    """
    home = tmp_path_factory.mktemp("home") / "100 % ? #1 + ä"
    home.mkdir()
    for name, rows in (("train", 3), ("eval", 2), ("predictions", 2)):
        messages = [[{"role": "user", "content": QUESTION}]] * rows
        pl.DataFrame({"row_id": range(rows), "prompt": messages}).write_parquet(home / f"{name}.parquet")
    request = RegistrationRequest(
        tracking_uri=sqlite_uri(home / "mlflow.db"),
        artifact_root=home / "mlartifacts",
        experiment="ernie_pipeline",
        model_name="ernie-math",
        run_name="a run",
        adapter=adapter[0],
        served={
            "spec": SPEC.model_dump(mode="json"),
            "instruction": INSTRUCTION,
            "max_new_tokens": 24,
            "max_batch": 8,
        },
        params={"lora.rank": 4, "training.learning_rate": 2e-4},
        figures={name: {"accuracy": share, "by_kind/integer/rows": 2} for name, share in ACCURACY.items()},
        metrics={"cost/gpu_seconds": 7.5},
        curve=[
            {"step": 10, "training/loss": 1.5, "training/learning_rate": 1e-4},
            {"step": 20, "training/loss": 1.2, "training/loss_objective": 1.3},
        ],
        about={"base_model": "demo", "data_set": "demo", "trained_on": "answers"},
        recipe={"lora.rank": 4, "filters.proof": True},
        tables={"answers_gained": [{"question": QUESTION, "reference": "42", "adapter's answer": "42"}]},
        answers={name: [{"question": QUESTION, "answer": said}] for name, said in ANSWERS.items()},
        pictures={"loss_curve": PNG},
        dataset=DatasetFiles("demo", "demo:0", SPLIT, home / "train.parquet", home / "eval.parquet"),
        tags={"dagster.run_id": "r1", "fingerprint": "f" * 16},
        predictions=home / "predictions.parquet",
        card=card,
        gate=Gate(),
        comparison=COMPARISON,
        candidate=Candidate(0.9, SPLIT, "sha256:adapter"),
        provenance=provenance("sha256:adapter"),
        probe=adapter[1],
        probe_tolerance=1e-3,
        example={"question": QUESTION, "answer": "42"},
    )
    return lambda **changes: dataclasses.replace(request, **changes)


@pytest.fixture(scope="session")
def told() -> list[str]:
    """What the first registration told."""
    return []


@pytest.fixture(scope="session")
def computed() -> list[LoadedBack]:
    """What the process of the first registration computed, which loaded the model back."""
    return []


@pytest.fixture(scope="session")
def registered(
    make_request: Callable[..., RegistrationRequest], told: list[str], computed: list[LoadedBack]
) -> Registration:
    """The first registration: it passes the gate."""

    def load(request: LoadBackRequest, folder: Path) -> LoadedBack:
        computed.append(load_back(request, folder))
        return computed[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ernie_pipeline.registry.register.load_back", load)
        return register(make_request(), tell=told.append)
