"""What is registered, gathered from the artifacts of the stages above."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ernie_pipeline.models.spec import ModelSpec, model_spec
from ernie_pipeline.recipe.sections import Recipe
from ernie_pipeline.recipe.signing import UNSIGNED, Signing
from ernie_pipeline.registry.answer_tables import answer_tables, first_answers
from ernie_pipeline.registry.gate import Candidate
from ernie_pipeline.registry.model_card import model_card, shown
from ernie_pipeline.registry.registration import RegistrationRequest
from ernie_pipeline.registry.run_log import DatasetFiles, in_training, metric_names, shown_params
from ernie_pipeline.registry.trained_on import trained_on
from ernie_pipeline.utils.flatten import flatten

SOURCE_LICENSES = {"demo": "apache-2.0", "nvidia/Nemotron-RL-math-OpenMathReasoning": "cc-by-4.0"}
TOLERANCES = {"float32": 1e-3, "bfloat16": 0.25}
"""How far a reloaded model's logits may be from the recorded ones: rounding by other kernels, nothing more."""

MAX_SERVED_BATCH = 16

WHOLE = "model"
"""Among the costs: of all that the model was made from."""


def make_request(
    recipe: Recipe,
    *,
    tracking_uri: str,
    artifact_root: Path | None,
    versions: Mapping[str, str],
    folders: Mapping[str, Path],
    built_with: Sequence[Mapping[str, Any]],
    comparison: Mapping[str, float],
    source: str,
    tags: Mapping[str, str],
    costs: Mapping[str, Mapping[str, float]] = MappingProxyType({}),
    pictures: Mapping[str, bytes] = MappingProxyType({}),
    provenance: Mapping[str, Any] = MappingProxyType({}),
    trained: str = "",
    signing: Signing = UNSIGNED,
) -> RegistrationRequest:
    """The request that `register` takes.

    `recipe` needs the sections source, base_model, quantization, lora, gate and registry, and the keys training.backend
    and evaluation.max_new_tokens. `versions`: the data version of every input. `folders`: the artifacts of math_split,
    qlora_adapter, base_evaluation and adapter_evaluation; `built_with`: the recipe keys that these were built with.
    `comparison`: the paired comparison of the two evaluations. `source`: what the rows come from, for a person.
    `costs`: figures of what each asset cost, and "model" all of them, which become the run's table of costs; the
    model's its metrics "cost/..." too. `pictures`: PNG files by name. `provenance`, `trained` and `signing`: as in the
    request.
    """
    spec = model_spec(recipe, versions["base_model"], recipe.lora)
    split, adapter, evaluation = (folders[name] for name in ("math_split", "qlora_adapter", "adapter_evaluation"))
    measured = {name: _json(folders[f"{name}_evaluation"] / "metrics.json") for name in ("base", "adapter")}
    example = _example(split, evaluation)
    served = {
        "spec": spec.model_dump(mode="json"),
        "instruction": example.pop("instruction"),
        "max_new_tokens": recipe.evaluation.max_new_tokens,
        "max_batch": MAX_SERVED_BATCH,
    }
    data = {"source": source, "version": versions["math_split"]}
    about = {**data, "on": trained_on(built_with)}
    recipe_keys = _merged(built_with)
    described = {
        "base_model": shown(spec.base.name),
        "data_set": shown(recipe.source.dataset or recipe.source.kind),
        "trained_on": about["on"],
    }
    return RegistrationRequest(
        tracking_uri=tracking_uri,
        artifact_root=artifact_root,
        experiment=recipe.registry.experiment,
        model_name=recipe.registry.model_name,
        run_name=f"{recipe.registry.model_name} {versions['qlora_adapter'][:8]}",
        adapter=adapter / "adapter",
        served=served,
        params={**described, **shown_params(recipe_keys)},
        figures={name: metric_names(figures) for name, figures in measured.items()},
        metrics=metric_names({"cost": {unit: value for unit, value in costs.get(WHOLE, {}).items() if value}}),
        curve=[in_training(entry) for entry in (*_json(adapter / "curve.json"), *_speed(adapter))],
        dataset=DatasetFiles(
            name="math_split", train_path=split / "train.parquet", eval_path=split / "eval.parquet", **data
        ),
        tags=tags,
        about=described,
        recipe=recipe_keys,
        tables={**answer_tables(folders["base_evaluation"], evaluation), **cost_table(costs)},
        answers={name: first_answers(folders[f"{name}_evaluation"]) for name in measured},
        pictures=dict(pictures),
        predictions=evaluation / "predictions.parquet",
        card=model_card(**card_facts(recipe, spec, about, adapter, measured, comparison, example["question"])),
        gate=recipe.gate,
        comparison=comparison,
        candidate=Candidate(
            measured["adapter"]["accuracy"],
            versions["math_split"],
            versions["qlora_adapter"],
            held_out_rows(evaluation),
        ),
        probe=_json(evaluation / "probe.json"),
        probe_tolerance=TOLERANCES[spec.quantization.compute_dtype],
        example=example,
        provenance=dict(provenance),
        trained=trained,
        signing=signing,
    )


def card_facts(
    recipe: Recipe,
    spec: ModelSpec,
    data: Mapping[str, str],
    adapter: Path,
    measured: Mapping[str, Mapping[str, float]],
    comparison: Mapping[str, float],
    question: str,
) -> dict[str, Any]:
    """What `model_card` takes. `data`: source and version of the split, training.on; `adapter`: qlora_adapter's folder.

    `recipe` needs the section source and the key registry.model_name.
    """
    curve, run = _json(adapter / "curve.json"), _json(adapter / "reports" / "run.json")
    validation = [entry for entry in curve if entry["step"] == run["kept_step"]]
    if run.get("method") == "grpo":  # its loss is weighted, and says nothing by itself
        told = {"share of answers solved at the end": _last(curve, "solved"), "accuracy": _last(validation, "accuracy")}
    else:
        told = {"final training loss": _last(curve, "loss"), "loss_objective": _last(validation, "loss_objective")}
    losses = {name: value for name, value in told.items() if value is not None}
    dataset = recipe.source.dataset or recipe.source.kind
    return {
        "name": recipe.registry.model_name,
        "license": "apache-2.0",  # ERNIE-4.5's, and the demo base model's
        "base": spec.base.model_dump(),
        "quantization": spec.quantization.model_dump(),
        "lora": spec.lora.model_dump(),
        "data": {
            **data,
            "name": dataset,
            "license": SOURCE_LICENSES.get(dataset, "unknown"),
            "train_rows": run["train_rows"],
            "eval_rows": run["eval_rows"],
        },
        "training": {**{name: run[name] for name in ("steps", "seconds", "backend", "device")}, **losses},
        "evaluation": measured,
        "comparison": comparison,
        "targets": _json(adapter / "parameters.json"),
        "question": question,
    }


def cost_table(costs: Mapping[str, Mapping[str, float]]) -> dict[str, list[dict[str, Any]]]:
    """The table "costs", a row for each asset; {} where nothing was metered."""
    rows = [
        {"of": name, **{unit.replace("_", " "): value for unit, value in its.items()}} for name, its in costs.items()
    ]
    return {"costs": rows} if rows else {}


def _example(split: Path, evaluation: Path) -> dict[str, str]:
    """A held-out question with the adapter's answer, and the instruction that stands before the question in its row."""
    import pyarrow.parquet as pq

    row = pq.read_table(split / "eval.parquet", columns=["question", "prompt"]).slice(0, 1).to_pylist()[0]
    answer = pq.read_table(evaluation / "predictions.parquet", columns=["prediction"])["prediction"][0].as_py()
    content: str = row["prompt"][-1]["content"]
    question: str = row["question"]
    instruction = content.removesuffix(question) if content.endswith(question) else ""
    return {"question": question, "answer": answer, "instruction": instruction}


def held_out_rows(evaluation: Path) -> str:
    """16 hex digits that stand for the rows that were answered, with their reference answers, in any order."""
    import pyarrow.parquet as pq

    rows = pq.read_table(evaluation / "predictions.parquet", columns=["question", "reference"]).to_pylist()
    pairs = sorted([row["question"], row["reference"]] for row in rows)
    return hashlib.sha256(json.dumps(pairs).encode()).hexdigest()[:16]


def _last(curve: list[dict[str, float]], name: str) -> float | None:
    """None where the method of training has no such thing."""
    values = [entry[name] for entry in curve if name in entry]
    return round(values[-1], 4) if values else None


def _merged(built_with: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """All recipe keys, flat, each once."""
    return {key: value for keys in built_with for key, value in flatten(keys).items()}


def _speed(adapter: Path) -> list[dict[str, float]]:
    entries: list[dict[str, float]] = _json(adapter / "reports" / "speed.json")
    return entries


def _json(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))
