"""README.md of a published model: the registered model's card, and what somebody who finds it on the hub asks."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ernie_pipeline.registry.export.readme import INSTRUCTED, LLAMA_CPP, MERGED, PATTERNS, PEFT, UNSLOTH, Report
from ernie_pipeline.registry.model_card import (
    LIMITS,
    assembled,
    bullets,
    data_facts,
    header,
    is_hub_id,
    parameters,
    results,
    shown,
    what_it_is,
)
from ernie_pipeline.registry.provenance import PROVENANCE
from ernie_pipeline.registry.signing import SIGNATURE
from ernie_pipeline.registry.trained_on import TAUGHT
from ernie_pipeline.utils.shares import as_shown, percent
from ernie_pipeline.utils.text_table import markdown_table

CURVE, CITATION, LICENSE, NOTICE = "training_curve.png", "CITATION.bib", "LICENSE", "NOTICE"
LIBRARIES = {"peft": "peft", "unsloth": "peft", "merged": "transformers", "gguf": "gguf"}
RELATIONS = {"peft": "adapter", "unsloth": "adapter", "merged": "finetune", "gguf": "finetune"}
"""The hub's words for how a model comes from its base; its `merge` is one made of several models."""
FORMS = (
    "What was measured is the base model in 4 bits with the adapter on it. Each form that is here is near that, and "
    'not the same: "What was checked" says by how much.'
)
WORDS = {
    "peft": "the adapter, for plain PEFT",
    "unsloth": "the adapter, for Unsloth",
    "merged": "base and adapter in bf16, for transformers and vLLM",
    "gguf": "base and adapter in one file, for llama.cpp",
}


@dataclass(frozen=True)
class Published:
    """What the card tells besides the facts of `model_card`.

    `reports`: what was checked of each form, by its name, in the order of the recipe; `gguf`: the file of that form.
    `rows`: of the source, by their place in the ledger; `dropped`: by reason. `benchmarks`: the sets that no training
    row may come from, `decontamination`: how rows were held against them. `versions`: of each source and artifact
    behind it. `reasons`: the gate's. `max_new_tokens`: of an answer that was measured.
    """

    repo: str
    license: str
    model: str
    instruction: str
    reports: Mapping[str, Report]
    rows: Mapping[str, int]
    dropped: Mapping[str, int]
    benchmarks: Sequence[str]
    decontamination: Mapping[str, Any]
    versions: Mapping[str, str]
    reasons: Sequence[str]
    citation: str
    max_new_tokens: int
    gguf: str = ""
    signed: bool = False
    by_kind: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def publication_card(facts: Mapping[str, Any], about: Published) -> str:
    """The card; `facts` as `model_card` takes them."""
    base, data, evaluation = facts["base"], facts["data"], facts["evaluation"]
    first, name = next(iter(about.reports)), about.repo.split("/")[1]
    head = [
        header(
            name,
            about.license,
            base,
            data,
            evaluation["adapter"],
            library=LIBRARIES[first],
            relation=RELATIONS[first],
            tags=["ernie_pipeline", "qlora", "lora", "math", *([] if "gguf" not in about.reports else ["gguf"])],
        ),
        f"# {name}",
        what_it_is(base, facts["quantization"], facts["lora"]),
        _files(about),
    ]
    sections = {
        "How to load it": "\n\n".join([*_loading(base, about), *_asking(about)]),
        "Results": "\n\n".join(
            [_measured(about), results(evaluation, facts["comparison"], data["on"]), *_by_kind(about), *_gate(about)]
        ),
        "Intended use and limits": f"{LIMITS.format(taught=TAUGHT[data['on']])}\n\n{FORMS}",
        "Training": f"{bullets(facts['training'])}\n\n![training curve]({CURVE})",
        "Data": _data(data, about),
        "What was checked": "\n\n".join(f"`{form}`:\n\n{_list(r.sentences)}" for form, r in about.reports.items()),
        "Parameters": parameters(facts["targets"]),
        "Provenance": _provenance(about),
        "Licence": f"{about.license}; `{NOTICE}` says what it is made of, and whose that is.",
        "Citation": f"```bibtex\n{about.citation.rstrip()}\n```",
    }
    return assembled(head, sections)


def folder_of(form: str, forms: Sequence[str]) -> str:
    """Where in the repository a form lies: "" for the first, which is at the top."""
    return "" if form == next(iter(forms)) else form


def _files(about: Published) -> str:
    forms = [*about.reports]
    rows = [(f"`{folder_of(form, forms) or '.'}`", WORDS[form]) for form in forms]
    return markdown_table(("folder", "what is in it"), rows)


def _loading(base: Mapping[str, Any], about: Published) -> list[str]:
    after = {"peft": f"\n\n{PATTERNS}"}
    return [f"`{form}`, {WORDS[form]}:\n\n{_lines(form, base, about)}{after.get(form, '')}" for form in about.reports]


def _lines(form: str, base: Mapping[str, Any], about: Published) -> str:
    below = folder_of(form, [*about.reports])
    if form == "gguf":
        file = f'"$(hf download {about.repo} {below + "/" if below else ""}{about.gguf})"'
        return f"```sh\n{LLAMA_CPP.format(file=file)}```"
    names = {"peft": PEFT, "unsloth": UNSLOTH, "merged": MERGED}
    code = names[form].format(base=_base(base), folder="folder" if below else repr(about.repo))
    fetched = (
        f'from huggingface_hub import snapshot_download\nfolder = snapshot_download("{about.repo}") + "/{below}"\n'
    )
    elsewhere = "" if is_hub_id(base["name"]) or form == "merged" else _not_on_hub(base)
    return f"{elsewhere}```python\n{fetched if below else ''}{code}```"


def _base(base: Mapping[str, Any]) -> str:
    if not is_hub_id(base["name"]):
        return repr(shown(base["name"]))
    return f"{base['name']!r}, revision={base['revision']!r}" if base["revision"] else repr(base["name"])


def _not_on_hub(base: Mapping[str, Any]) -> str:
    where = "the folder demo/base of the package ernie_pipeline" if base["name"] == "demo" else "a folder of yours"
    return (
        f"Its base model is not on the hub: put the path of {where}, whose content has the version "
        f"`{base['version']}`, in the place of `{shown(base['name'])!r}`.\n\n"
    )


def _asking(about: Published) -> list[str]:
    if not about.instruction:
        return []
    return [INSTRUCTED.format(json.dumps(about.instruction, ensure_ascii=False))]


def _measured(about: Published) -> str:
    return (
        f"Greedy answers of at most {about.max_new_tokens:,} tokens, each right or wrong by a grader that compares the "
        "final answer with the reference answer as mathematics."
    )


def _by_kind(about: Published) -> list[str]:
    base, adapter = about.by_kind.get("base", {}), about.by_kind.get("adapter", {})
    rows = [
        (kind, f"{values['rows']:,}", percent(base[kind]["accuracy"]), percent(values["accuracy"]))
        for kind, values in adapter.items()
        if kind in base
    ]
    return [markdown_table(("kind of answer", "held-out rows", "base", "adapter"), rows)] if rows else []


def _gate(about: Published) -> list[str]:
    return [f"The gate by which it was let through:\n\n{_list(about.reasons)}"] if about.reasons else []


def _data(data: Mapping[str, Any], about: Published) -> str:
    versions = {f"`{name}`": f"`{version}`" for name, version in about.versions.items() if name in _SOURCES}
    dropped = [(reason.replace("_", " "), f"{rows:,}") for reason, rows in about.dropped.items() if rows]
    places = ", ".join(f"{rows:,} {place}" for place, rows in sorted(about.rows.items(), key=lambda each: -each[1]))
    told = {
        **data_facts(data),
        "rows of the source": f"{sum(about.rows.values()):,}: {places}",
        "decontamination": _decontamination(about),
        **versions,
    }
    table = [markdown_table(("dropped for", "rows"), dropped)] if dropped else []
    return "\n\n".join([bullets(told), *table])


def _decontamination(about: Published) -> str:
    if not about.decontamination.get("enabled"):
        return "none"
    sets = [f"`{name}`" for name in about.benchmarks]
    own = ["the rows held out"] if about.decontamination.get("own_evaluation") else []
    overlap = sum(about.dropped.get(reason, 0) for reason in ("benchmark_overlap", "evaluation_overlap"))
    none = "" if sets else " (no benchmark set was named)"
    return f"{overlap:,} rows dropped for asking what is asked in {', '.join([*sets, *own]) or 'nothing'}{none}"


_SOURCES = ("nemotron_source", "benchmark_sets", "math_split", "base_model")


def _provenance(about: Published) -> str:
    signed = (
        f"`{SIGNATURE}` is the signature of all files, `{PROVENANCE}` among them, by OpenSSF model-signing: "
        "`model_signing verify --help` says how to check it."
        if about.signed
        else "It is not signed."
    )
    return (
        f"Published from `{about.model}` of an MLflow registry by ernie_pipeline. `{PROVENANCE}` is an in-toto "
        "statement (SLSA): the SHA-256 of every other file here, and all that the model was made from, back to hub "
        f"commits and file hashes. {signed}"
    )


def _list(sentences: Sequence[str]) -> str:
    return "\n".join(as_shown(f"- {sentence}") for sentence in sentences)
