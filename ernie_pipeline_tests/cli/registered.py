"""A home with registered versions, made in two seconds: real manifests, answers, figures and registry; no model."""

import json
import os
import shutil
import sqlite3
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from mlflow.tracking._tracking_service.utils import _artifact_repos_cache

from ernie_pipeline.evaluation.compare import compare_evaluations
from ernie_pipeline.evaluation.metrics import by_kind, summarise
from ernie_pipeline.grading.grade import Grade, grade, is_strict
from ernie_pipeline.recipe.settings import Settings, sqlite_uri
from ernie_pipeline.recipe.signing import Signing
from ernie_pipeline.registry.figures import log_figures
from ernie_pipeline.registry.lineage import walk_back
from ernie_pipeline.registry.opened import ADAPTER_RUN, opened_model, opened_run
from ernie_pipeline.registry.provenance import predicate, write_provenance
from ernie_pipeline.registry.request import held_out_rows
from ernie_pipeline.registry.run_log import OfModel, metric_names
from ernie_pipeline.registry.signing import open_signer
from ernie_pipeline.registry.tracking import CHECKED, connected, ensure_experiment
from ernie_pipeline.staleness.stage import Work
from ernie_pipeline.staleness.stages import STAGES, open_chain
from ernie_pipeline.store.artifacts import ArtifactStore
from ernie_pipeline.store.sealed import list_files
from ernie_pipeline_tests.staleness.chains import walk

ROWS = [
    {"row_id": f"{n:016x}", "kind": "integer", "question": f"What is {n} + {n}?", "answer": str(2 * n)}
    for n in range(100, 124)
]
TRAIN, HELD_OUT = ROWS[:12], ROWS[12:]
RECIPE = """
[source]
kind = "file"
path = "{source}"
[training]
on = "solutions"
backend = "peft"
[registry]
model_name = "quick"
[gate]
max_p_value = {p}
"""


@dataclass(frozen=True)
class RegisteredHome:
    """Where it is: home, recipe and source beside each other."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        return {
            "ERNIE_PIPELINE_HOME": str(self.folder / "home"),
            "ERNIE_PIPELINE_RECIPE": str(self.folder / "recipe.toml"),
        }

    @property
    def settings(self) -> Settings:
        home = self.folder / "home"
        return Settings(home, str(self.folder / "recipe.toml"), None, sqlite_uri(home / "mlflow.db"))

    def artifact(self, stage: str) -> Path:
        """The folder of a stage's artifact, of registered_model that of the first version."""
        folders = (self.folder / "home" / "store" / stage).glob("[!.]*")
        [folder] = [each for each in folders if stage != "registered_model" or _version(each) == "1"]
        return folder

    def files(self, version: str) -> Path:
        """The folder of a version's files."""
        return self.folder / "home" / "mlartifacts" / version

    def sql(self, statement: str, *values: str) -> None:
        """Alter the registry's database, as nobody should."""
        with sqlite3.connect(self.folder / "home" / "mlflow.db") as database:
            assert database.execute(statement, values).rowcount > 0, statement

    def tag_as_before(self) -> None:
        """Give every version the tags that it had when its provenance alone did not say what it was made from."""
        store = self.folder / "home" / "store"
        manifests = [json.loads(path.read_text()) for path in store.glob("*/[!.]*/manifest.json")]
        fingerprints = {(made["stage"], made["data_version"]): made["fingerprint"] for made in manifests}
        with connected(self.settings.tracking_uri) as client:
            for made in (made for made in manifests if made["stage"] == "registered_model"):
                version = _version(store / "registered_model" / made["fingerprint"])
                tags = {f"data_version.{name}": its for name, its in made["inputs"].items()}
                read = {name: fingerprints.get((name, its)) for name, its in made["inputs"].items()}
                tags |= {f"fingerprint.{name}": its for name, its in read.items() if its}
                for key, value in {**tags, "dagster.run_id": "a run"}.items():
                    client.set_model_version_tag("quick", version, key, value)

    def aliases(self) -> dict[str, str]:
        """Those of the model."""
        with sqlite3.connect(self.folder / "home" / "mlflow.db") as database:
            return {k: str(v) for k, v in database.execute("SELECT alias, version FROM registered_model_aliases")}

    def copy(self, folder: Path) -> "RegisteredHome":
        """The same elsewhere."""
        shutil.copytree(self.folder, folder, dirs_exist_ok=True)
        copied = RegisteredHome(folder)
        _artifact_repos_cache.clear()  # by which MLflow remembers where a run's files were
        recipe = folder / "recipe.toml"
        recipe.write_text(recipe.read_text().replace(str(self.folder), str(folder)))
        return copied


def _version(registration: Path) -> str:
    return str(json.loads((registration / "registration.json").read_text())["version"])


def make_home(folder: Path, key: Path | None = None, versions: int = 2) -> RegisteredHome:
    """So many versions of the model quick, the first the champion, signed with `key` if there is one."""
    made = RegisteredHome(folder)
    (folder / "rows.jsonl").write_text("rows\n")
    graded = {side: grades(side) for side in ("base", "adapter")}
    for number in range(1, versions + 1):
        text = RECIPE.format(source=folder / "rows.jsonl", p=number / 100)
        (folder / "recipe.toml").write_text(text)
        chain = open_chain(made.settings, ask_registry=False)
        walk(
            chain,
            math_split=lambda work, out: _split(out),
            verified_solutions=lambda work, out: _solutions(out),
            base_evaluation=lambda work, out: evaluation(out, graded["base"], "base"),
            adapter_evaluation=lambda work, out: evaluation(out, graded["adapter"], "adapter"),
            registered_model=lambda work, out, n=str(number): _register(made, work, out, n, key),
        )
    return made


def texts(side: str) -> list[str]:
    """The adapter answers all but the first row right, the base model only every fourth."""
    return [
        f"It is \\boxed{{{row['answer']}}}." if (n if side == "adapter" else n % 4 == 1) else f"It is \\boxed{{{n}}}."
        for n, row in enumerate(HELD_OUT)
    ]


def grades(side: str) -> list[Grade]:
    """Of `texts`."""
    return grade(texts(side), [row["answer"] for row in HELD_OUT], timeout_s=30)


def evaluation(out: Path, graded: list[Grade], side: str) -> None:
    """An evaluation's artifact."""
    rows = [
        {
            "row_id": row["row_id"],
            "question": row["question"],
            "reference": row["answer"],
            "prediction": text,
            "correct": one.outcome == "correct",
            "ended": True,
            "strict": is_strict(one, True),
            **{name: value for name, value in asdict(one).items() if name != "seconds"},
        }
        for row, text, one in zip(HELD_OUT, texts(side), graded, strict=True)
    ]
    kinds = by_kind([row["kind"] for row in HELD_OUT], graded)
    loss = {"base": 1.5, "adapter": 1.75}[side]
    metrics = {"loss_completion": loss, **summarise(graded, [True] * len(rows)), "by_kind": kinds}
    pq.write_table(pa.Table.from_pylist(rows), out / "predictions.parquet")
    (out / "reports").mkdir()
    _write_json(out, {"metrics": metrics, "model": {"backend": "peft"}})
    _write_json(out / "reports", {"run": {"backend": "peft", "device": "CPU, 1 threads"}})


def _split(out: Path) -> None:
    pq.write_table(pa.Table.from_pylist(TRAIN), out / "train.parquet")
    prompts = [{**row, "prompt": [{"role": "user", "content": row["question"]}]} for row in HELD_OUT]
    pq.write_table(pa.Table.from_pylist(prompts), out / "eval.parquet")


def _solutions(out: Path) -> None:
    """One attempt, which is right."""
    [right] = grade([f"\\boxed{{{TRAIN[0]['answer']}}}"], [TRAIN[0]["answer"]], timeout_s=30)
    row = TRAIN[0]
    attempt = {
        "row_id": row["row_id"],
        "question": row["question"],
        "reference": row["answer"],
        "text": f"\\boxed{{{row['answer']}}}",
        "ended": True,
        "strict": True,
        **{name: value for name, value in asdict(right).items() if name != "seconds"},
    }
    pq.write_table(pa.Table.from_pylist([attempt]), out / "attempts.parquet")


def _register(home: RegisteredHome, work: Work, out: Path, number: str, key: Path | None) -> None:
    settings, store = home.settings, ArtifactStore(home.settings.store)
    evaluations = {side: work.artifacts[f"{side}_evaluation"] for side in ("base", "adapter")}
    comparison = compare_evaluations(*(each.folder for each in evaluations.values()))
    folder = home.files(number)
    (folder / "adapter").mkdir(parents=True)
    (folder / "MLmodel").write_text(f"version {number}\n")
    (folder / "adapter" / "adapter_model.safetensors").write_bytes(os.urandom(64))
    links = walk_back(store, work.made_from.inputs, "registered_model", STAGES)
    write_provenance(folder, predicate(links, work.made_from.recipe, work.made_from.fingerprint, "a run"))
    if sign := open_signer(Signing(key=str(key) if key else None)):
        sign(folder)
    metrics = {side: artifact.json("metrics.json") for side, artifact in evaluations.items()}
    tags = {
        CHECKED: "0",
        "fingerprint": work.made_from.fingerprint,
        "gate.promoted": str(number == "1").lower(),
        "gate.reasons": "It is better.",
        "gate.accuracy": repr(metrics["adapter"]["accuracy"]),
        "gate.held_out": held_out_rows(evaluations["adapter"].folder),
    }
    compared = {f"comparison/{name}": value for name, value in comparison.items()}
    figures = {side: metric_names(values) for side, values in metrics.items()}
    figures["adapter"] |= compared
    aliases = _in_registry(settings, folder, number, figures, tags)
    decided = {"promoted": number == "1", "reasons": ["It is better."], "max_logit_difference": 0.0}
    said = {"name": "quick", "version": number, "aliases": aliases, "files": list_files(folder), **decided}
    _write_json(out, {"registration": said, "comparison": comparison})


def _in_registry(
    settings: Settings, folder: Path, number: str, figures: Mapping[str, Mapping[str, float]], tags: dict[str, str]
) -> list[str]:
    """As `register` does it: adapter and base model each as a run with a logged model; the aliases that it got."""
    with connected(settings.tracking_uri) as client:
        if number == "1":
            client.create_registered_model("quick")
        experiment = ensure_experiment(client, "quick", settings.artifact_root)
        run_id, model_id = _measured(client, experiment, "adapter", figures["adapter"], {})
        _measured(client, experiment, "base", figures["base"], {ADAPTER_RUN: run_id})
        version = client.create_model_version(
            "quick", source=folder.as_uri(), run_id=run_id, model_id=model_id, tags=tags
        )
        assert str(version.version) == number
        aliases = ["challenger", "champion"] if number == "1" else ["challenger"]
        for alias in aliases:
            client.set_registered_model_alias("quick", alias, number)
    return aliases


def _measured(
    client: Any, experiment: str, side: str, figures: Mapping[str, float], tags: Mapping[str, str]
) -> tuple[str, str]:
    """The ids of a run and its logged model, which have the figures."""
    tags = {"model": side, **tags}
    with (
        opened_run(client, experiment, side, "", tags) as run_id,
        opened_model(client, experiment, run_id, side, side, {"mlflow.model.isExternal": "true", **tags}) as logged,
    ):
        log_figures(client, run_id, figures, OfModel(logged.model_id, "math_split/eval", "digest"))
        client.finalize_logged_model(logged.model_id, "READY")
        return run_id, logged.model_id


def _write_json(folder: Path, files: Mapping[str, Any]) -> None:
    for name, values in files.items():
        (folder / f"{name}.json").write_text(json.dumps(values))
