"""What the pages of an evaluation and of a registered model say, made of artifacts with a few answers."""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from ernie_pipeline.evaluation.metrics import compare_paired
from ernie_pipeline.orchestration.pages.compared import STAGES, Compared, show_compared
from ernie_pipeline.orchestration.pages.evaluation import show_evaluation
from ernie_pipeline.orchestration.pages.registration import show_registration
from ernie_pipeline.recipe.sections import Recipe
from ernie_pipeline.recipe.settings import Settings, sqlite_uri
from ernie_pipeline.staleness.chain import Chain, Write
from ernie_pipeline.store.artifacts import Artifact, ArtifactStore
from ernie_pipeline_tests.staleness.chains import chain_of, recipe_with, walk, writes

TRAINING = "workflowType=machine_learning"
RUN = {"backend": "peft", "device": "CPU, 1 threads", "problems_sampled": 8, "generated_tokens": 12345}
RIGHT = {"base": "11110000", "first": "11110110", "second": "11101111"}
"""Whether each of eight questions is answered rightly."""


def evaluation(right: str) -> Write:
    def write(work: Any, out: Path) -> None:
        correct = [letter == "1" for letter in right]
        share = sum(correct) / len(correct)
        metrics = {"rows": 8, "accuracy": share, "accuracy_low": 0.21534, "accuracy_high": 0.785, "timeout_share": 0.0}
        metrics |= {"accuracy_strict": share, "loss_completion": 0.61132 + (share > 0.5) / 10}
        kinds = {"integer": {"rows": 6, "accuracy": 0.5}, "fraction": {"rows": 2, "accuracy": 1 / 3}}
        (out / "reports").mkdir()
        (out / "metrics.json").write_text(json.dumps({**metrics, "by_kind": kinds}))
        (out / "reports" / "run.json").write_text(json.dumps(RUN))
        pl.DataFrame([answer(n, ok) for n, ok in enumerate(correct)]).write_parquet(out / "predictions.parquet")

    return write


def answer(n: int, ok: bool) -> dict[str, Any]:
    """The sixth has no box, the eighth was cut off."""
    asked = {"row_id": str(n), "question": f"What is\n{n} + {n}?", "reference": str(2 * n)}
    said = {"prediction": f"\\boxed{{{n}}}", "extracted": str(n), "ended": n < 7, "boxed": n != 5}
    graded = {"outcome": "correct", "reason": ""} if ok else {"outcome": "wrong", "reason": "the value differs"}
    return {**asked, **said, "correct": ok, **graded}


def registration(version: str, adapter: str, promoted: bool) -> Write:
    def write(work: Any, out: Path) -> None:
        said = {"name": "quick", "version": version, "run_id": "ae32", "experiment_id": "1", "promoted": promoted}
        said |= {"model_uri": f"models:/quick/{version}", "aliases": ["challenger"], "reasons": ["the gain is small."]}
        said |= {"answer": "\\boxed{9}", "max_logit_difference": 3.5762786865234375e-06}
        compared = compare_paired(*([letter == "1" for letter in RIGHT[name]] for name in ("base", adapter)))
        (out / "registration.json").write_text(json.dumps(said))
        (out / "comparison.json").write_text(json.dumps(vars(compared)))

    return write


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "store")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(tmp_path, "demo", None, sqlite_uri(tmp_path / "mlflow.db"))


def made(
    store: ArtifactStore, adapter: str, version: str, promoted: bool, recipe: Recipe, **further: Write
) -> tuple[Artifact, Chain]:
    chain = chain_of(store, recipe)
    artifacts = walk(
        chain,
        qlora_adapter=writes(adapter),
        base_evaluation=evaluation(RIGHT["base"]),
        adapter_evaluation=evaluation(RIGHT[adapter]),
        registered_model=registration(version, adapter, promoted),
        **further,
    )
    return artifacts["registered_model"], chain


def records(value: Any) -> list[Mapping[str, Any]]:
    assert isinstance(value, dg.TableMetadataValue)
    return [record.data for record in value.records]


def all_text(page: Mapping[str, Any]) -> str:
    """Everything that a person reads there without a click."""
    tables = [value for value in page.values() if isinstance(value, dg.TableMetadataValue)]
    plain = [str(value) for value in page.values() if isinstance(value, str | float | int)]
    return "\n".join([*plain, *(str(cell) for table in tables for row in records(table) for cell in row.values())])


def test_an_evaluation_s_numbers_are_written_as_people_write_them(store: ArtifactStore) -> None:
    chain = chain_of(store)
    page = show_evaluation(walk(chain, base_evaluation=evaluation(RIGHT["base"]))["base_evaluation"])
    assert page["accuracy"] == "50.0 % (21.5 to 78.5 %) of 8 rows"
    assert page["loss on the completions"] == 0.611
    assert page["generated tokens"] == "12,345"
    assert {"kind": "fraction", "rows": "2", "right": "33.3 %", "95 % interval": "4.5 to 84.1 %"} in records(
        page["kinds of answer"]
    )
    assert not re.findall(r"\d\.\d{4,}", all_text(page))


def test_the_worst_failures_come_first_and_their_tables_are_narrow(store: ArtifactStore) -> None:
    chain = chain_of(store)
    page = show_evaluation(walk(chain, base_evaluation=evaluation(RIGHT["base"]))["base_evaluation"])
    failures = records(page["failures"])
    assert failures[0] == {"said": "7", "right is": "14", "question": "What is 7 + 7?"}, "it was cut off"
    assert failures[1]["said"] == "5", "it is not boxed"
    assert len(failures) == 4
    assert records(page["why answers failed"]) == [{"reason": "the value differs", "count": "4"}]


def test_a_registered_model_stands_beside_its_base_with_links_to_mlflow(
    store: ArtifactStore, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact, chain = made(store, "first", "1", promoted=False, recipe=recipe_with(training={"on": "solutions"}))
    page = show_registration(artifact, replace(settings, mlflow_ui="http://127.0.0.1:5055/"), chain)
    assert page["gain over the base model"].startswith("+25.0 points (")
    assert page["gate"] == "not passed: the gain is small."
    assert page["loss on the completions"] == "0.611 -> 0.711"
    assert page["why the loss rose"].startswith("The loss of the adapter is higher although")
    assert page["base and adapter"].value.startswith("![base and adapter](data:image/svg+xml;base64,")
    assert page["version in MLflow"].url == f"http://127.0.0.1:5055/#/models/quick/versions/1?{TRAINING}"
    assert f"(http://127.0.0.1:5055/#/experiments/1/runs/ae32?{TRAINING})" in page["and there"].value
    assert f"(http://127.0.0.1:5055/#/experiments/1/runs?{TRAINING}&compareRunsMode=CHART)" in page["and there"].value
    monkeypatch.chdir(settings.home)
    shown = show_registration(artifact, settings, chain)
    whole = f"mlflow ui --backend-store-uri sqlite:///{settings.home}/mlflow.db"
    assert shown["MLflow is shown by"] == whole, "wherever it is pasted"
    relative = show_registration(artifact, replace(settings, tracking_uri="sqlite:///mlflow.db"), chain)
    assert relative["MLflow is shown by"] == whole
    assert [row["rows"] for row in records(page["answers, base and adapter"])] == ["4", "0", "2", "2"]
    assert "the last champion" not in page


def test_what_changed_against_the_last_champion_is_told(store: ArtifactStore, settings: Settings) -> None:
    made(store, "first", "1", promoted=True, recipe=Recipe())
    made(store, "base", "2", promoted=False, recipe=recipe_with(training={"max_steps": 7}))
    artifact, chain = made(store, "second", "3", promoted=True, recipe=recipe_with(lora={"rank": 8}))
    page = show_registration(artifact, settings, chain)
    assert page["the last champion"] == "version 1"
    assert [row["change"] for row in records(page["changed since the last champion"])] == ["recipe lora.rank 16 -> 8"]
    told = "75.0 % then, 87.5 % now (+12.5 points), of the 8 rows that both answered: 2 got better, 1 worse"
    assert page["answers beside the last champion's"] == told
    [worse] = records(page["got worse since the last champion"])
    assert worse == {"then, now": "3, 3", "right is": "6", "question": "What is 3 + 3?"}


def test_recipes_are_compared_the_best_first_and_what_is_not_built_is_named(store: ArtifactStore) -> None:
    places = {"dropped": 1, "evaluation": 8, "train": 1234}

    def split(work: Any, out: Path) -> None:
        (out / "reports").mkdir()
        (out / "reports" / "profile.json").write_text(json.dumps({"places": places}))

    compared = []
    for name, recipe in (("first", Recipe()), ("second", recipe_with(lora={"rank": 8}))):
        _, chain = made(store, name, "1", promoted=False, recipe=recipe, math_split=split)
        compared.append(
            Compared(name, {stage: chain.artifact(stage) for stage in STAGES}, cost="3 min of CPU", aliases="champion")
        )
    page = show_compared([*compared, Compared("third", {}, missing="math_split: not built yet")])
    after = [(row["recipe"], row["before"], row["after"].partition(" (")[0]) for row in records(page["right answers"])]
    assert after == [("second", "50.0 %", "87.5 %"), ("first", "50.0 %", "75.0 %")]
    assert records(page["made of"])[0] == {
        "recipe": "second",
        "rows": "1,234",
        "loss": "0.611 -> 0.711",
        "cost": "3 min of CPU",
        "model": "quick 1",
        "aliases": "champion",
    }
    assert page["comparable"] == "yes: all answered the same 8 held-out rows"
    assert page["after training"].value.startswith("![after training](data:image/svg+xml")
    assert records(page["not built"]) == [{"recipe": "third", "why": "math_split: not built yet"}]
