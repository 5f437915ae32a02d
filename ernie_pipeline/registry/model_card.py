"""The model card: what the adapter is for, what it was made from, and what it measured, as the hub writes them."""

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ernie_pipeline.registry.trained_on import TAUGHT, loss_note
from ernie_pipeline.utils.shares import as_shown, between, percent, points, points_between
from ernie_pipeline.utils.text_table import markdown_table

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

Facts = Mapping[str, Any]
"""Values by name, as the functions below say."""

LIMITS = """\
Mathematics problems in English, of the kinds in its training data, with a final answer in `\\boxed{{}}`. It was \
trained on {taught} and measured on held-out rows of the same source, so the figures say little about \
other problems, other languages, proofs, or questions that are not mathematics. Its answers can be wrong: check them."""
"""In one line: MLflow's pages break one where the text does."""

VERSION = "VERSION"
"""In the place of the version's number: the card is written, and may be signed, before the registry gives one."""


def model_card(
    *,
    name: str,
    license: str,
    base: Facts,
    quantization: Facts,
    lora: Facts,
    data: Facts,
    training: Facts,
    evaluation: Mapping[str, Mapping[str, float]],
    comparison: Mapping[str, float],
    targets: Sequence[Facts],
    question: str,
) -> str:
    """The card in Markdown, with the hub's YAML header; of which version it is, `of_version` fills in.

    base          name, revision, version
    data          name, source, version, license, train_rows, eval_rows, on (a key of `TAUGHT`)
    training      figures to list as they are, by their names ("steps": 100)
    evaluation    "base" and "adapter", each with rows, accuracy, accuracy_low, accuracy_high, loss_completion if any
    comparison    gain, gain_low, gain_high, p_value
    targets       the audit's rows: part, target, modules, four_bit_parameters, lora_parameters
    """
    head = [header(name, license, base, data, evaluation["adapter"]), f"# {name}", what_it_is(base, quantization, lora)]
    sections = {
        "Intended use and limits": LIMITS.format(taught=TAUGHT[data["on"]]),
        "Data": bullets(data_facts(data)),
        "Training": bullets({"base model version": base["version"], **training}),
        "Results": results(evaluation, comparison, data["on"]),
        "Parameters": parameters(targets),
        "How to load it": _usage(name, base, quantization, lora, question),
    }
    return assembled(head, sections)


def assembled(head: Sequence[str], sections: Mapping[str, str]) -> str:
    """A card of paragraphs, then sections by their titles."""
    return "\n\n".join([*head, *(f"## {title}\n\n{text}" for title, text in sections.items())]) + "\n"


def of_version(card: str, name: str, version: str) -> str:
    """The card with the number that the registry has given the version."""
    told = card.replace(f"models:/{name}/{VERSION}", f"models:/{name}/{version}")
    return told.replace(f"this is version {VERSION}", f"this is version {version}")


def without_header(card: str) -> str:
    """The card for pages that would show its YAML header as text: all but the hub's."""
    return card.partition("\n---\n")[2].lstrip() if card.startswith("---\n") else card


def description(card: str, chars: int) -> str:
    """The card without its header, cut between two sections where it is longer than `chars` characters."""
    text = without_header(card)
    if len(text) <= chars:
        return text
    note = "\n\nThe rest is in model_card.md, among the artifacts of the run."
    fits = text[: chars - len(note)]
    return (fits.rpartition("\n\n## ")[0] or fits) + note


def shown(name: str) -> str:
    """A hub id as it is, and of a path only the last part: where it lay is nobody's business."""
    return name if is_hub_id(name) else Path(name).name


ROWS = re.compile(r".*\.(jsonl?|csv|tsv|txt|parquet|arrow|feather)(\.(gz|zst))?", re.IGNORECASE)
"""The name of a file of rows."""


def is_hub_id(name: str) -> bool:
    """Whether it has the form "NAMESPACE/NAME", and is no path of rows or of a folder that is here."""
    return (
        name.count("/") == 1
        and not name.startswith((".", "/", "~"))
        and not ROWS.fullmatch(name)
        and not Path(name).exists()
    )


def header(
    name: str,
    license: str,
    base: Facts,
    data: Facts,
    measured: Mapping[str, float],
    *,
    library: str = "peft",
    relation: str = "adapter",
    tags: Sequence[str] = ("lora", "qlora", "math"),
) -> str:
    """The hub's YAML header, by its own library; `measured`: the adapter's evaluation, as in `model_card`.

    `data` may have the data set's commit besides, as revision.
    """
    from huggingface_hub import ModelCardData

    of_base = {"base_model": base["name"], "base_model_relation": relation} if is_hub_id(base["name"]) else {}
    values = ModelCardData(
        language=["en"],
        license=license,
        library_name=library,
        pipeline_tag="text-generation",
        tags=[*tags],
        datasets=[data["name"]] if is_hub_id(data["name"]) else None,
        metrics=["accuracy"],
        model_name=name,
        eval_results=_eval_results(data, measured),
        **of_base,
    )
    return f"---\n{values.to_yaml(line_break=chr(10))}\n---"


def _eval_results(data: Facts, measured: Mapping[str, float]) -> "list[EvalResult]":
    """The accuracies, each with its interval in its name: the hub has no other place for one."""
    from huggingface_hub import EvalResult

    kinds = {"accuracy": "Accuracy", "accuracy_strict": "Accuracy, boxed and ended"}
    return [
        EvalResult(
            task_type="text-generation",
            task_name="Mathematics problems with a final answer",
            dataset_type=shown(data["name"]),
            dataset_name=f"{shown(data['name'])}, rows held out",
            dataset_revision=data.get("revision"),
            metric_type="accuracy",
            metric_name=f"{words} (95 % interval {measured[f'{key}_low']:.4f} to {measured[f'{key}_high']:.4f}, "
            f"{measured['rows']} rows)",
            metric_value=round(measured[key], 4),
        )
        for key, words in kinds.items()
        if key in measured
    ]


def what_it_is(base: Facts, quantization: Facts, lora: Facts) -> str:
    """The first sentence."""
    double = ", double quantization" if quantization["double"] else ""
    return (
        f"A LoRA adapter (rank {lora['rank']}, alpha {lora['alpha']}) of `{shown(base['name'])}`, trained with "
        f"the base in 4 bits ({quantization['type']}{double})."
    )


def data_facts(data: Facts) -> dict[str, str]:
    """What it was trained and measured on, by words."""
    unit = "solutions" if data["on"] == "solutions" else "rows"
    return {
        "data set": f"{shown(data['name'])} ({data['license']})",
        "source": shown(data["source"]),
        "data version": data["version"],
        unit: f"{data['train_rows']:,} to train on, {data['eval_rows']:,} held out",
    }


def results(evaluation: Mapping[str, Mapping[str, float]], comparison: Mapping[str, float], on: str) -> str:
    """Both models in a table, the paired test, and where the loss rose with the accuracy, why; `on`: as in `TAUGHT`."""
    rows = [
        (label, f"{m['rows']:,}", f"{m['loss_completion']:.4f}" if "loss_completion" in m else "-", _percent(m))
        for label, m in (("base", evaluation["base"]), ("adapter", evaluation["adapter"]))
    ]
    interval = points_between(comparison["gain_low"], comparison["gain_high"])
    gained = (
        f"Gain in accuracy: {points(comparison['gain'])} (95 % interval {interval}); exact McNemar test on the same "
        f"rows: p = {comparison['p_value']:.3g}."
    )
    header = ("model", "held-out rows", "loss on completions", "accuracy (95 % interval)")
    note = loss_note("the adapter", on, evaluation["adapter"], evaluation["base"])
    return "\n\n".join([markdown_table(header, rows), gained, *([note] if note else [])])


def _percent(m: Mapping[str, float]) -> str:
    return f"{percent(m['accuracy'])} ({between(m['accuracy_low'], m['accuracy_high'])})"


def parameters(targets: Sequence[Facts]) -> str:
    """What is in 4 bits and what is trained, as a table."""
    keys = ("modules", "four_bit_parameters", "lora_parameters")
    rows = [(t["part"], t["target"], *(f"{t[key]:,}" for key in keys)) for t in targets]
    totals = (f"{sum(t[key] for t in targets):,}" for key in keys)
    return markdown_table(
        ("part", "target", "modules", "4-bit parameters", "LoRA parameters"), [*rows, ("all", "", *totals)]
    )


def _usage(name: str, base: Facts, quantization: Facts, lora: Facts, question: str) -> str:
    asked = json.dumps({"dataframe_records": [{"question": question}]}, ensure_ascii=False)
    precision = {key: quantization[key] for key in ("type", "double", "compute_dtype")}
    return f"""\
With MLflow, where `MLFLOW_TRACKING_URI` leads to the registry in which this is version {VERSION}; the base model is \
held as it was in training:

```python
import mlflow

model = mlflow.pyfunc.load_model("models:/{name}/{VERSION}")
print(model.predict([{{"question": {json.dumps(question, ensure_ascii=False)}}}]))
```

```sh
mlflow models serve -m "models:/{name}/{VERSION}" --env-manager local --port 5001
curl http://127.0.0.1:5001/invocations -H "Content-Type: application/json" -d {shlex.quote(asked)}
```

Without MLflow, from this folder (plain PEFT drops most of the adapter silently: the routed experts have to be taken \
apart first, which the backend does):

```python
from pathlib import Path

from ernie_pipeline.models import backend_named
from ernie_pipeline.models.spec import ModelSpec

base = {_python(base)}
quantization = {precision!r}
spec = ModelSpec(backend="peft", base=base, quantization=quantization, lora={_python(lora)}, adapter=Path("."))
model = backend_named("peft").load(spec, "cpu")
```"""


def _python(values: Facts) -> str:
    """As a literal; of a base model's folder the last part, see `shown`."""
    names = {"name", "checkpoint"} & {*values}
    return repr({key: shown(value) if key in names else value for key, value in values.items()})


def bullets(facts: Facts) -> str:
    """A list of what is known by its name."""
    return "\n".join(as_shown(f"- {key}: {value}") for key, value in facts.items())
