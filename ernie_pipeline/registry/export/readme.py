"""README.md of an export: what it is, the lines that load it, what was checked, and what was not."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ernie_pipeline.registry.export.source import Source
from ernie_pipeline.utils.shares import as_shown

PEFT = """\
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
base = AutoModelForCausalLM.from_pretrained({base}, dtype="auto")
model = PeftModel.from_pretrained(base, {folder})
tokenizer = AutoTokenizer.from_pretrained({base})
"""
UNSLOTH = """\
from unsloth import FastModel
model, tokenizer = FastModel.from_pretrained({folder}, load_in_4bit=True, use_exact_model_name=True)
FastModel.for_inference(model)
"""
MERGED = """\
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained({folder}, dtype="auto")
tokenizer = AutoTokenizer.from_pretrained({folder})
"""
GENERATE = """\
question = {question}
messages = [{{"role": "user", "content": question}}]
inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True, return_tensors="pt")
answer = model.generate(**inputs.to(model.device), max_new_tokens={tokens}, do_sample=False)
print(tokenizer.decode(answer[0][inputs["input_ids"].shape[1] :], skip_special_tokens=True))
"""
"""What is asked with the model that these lines have loaded."""
LLAMA_CPP = """\
llama-cli -m {file} --jinja -p "Compute 12 + 30."
"""
PATTERNS = (
    'PEFT 0.21 warns of rank_pattern keys that "did not match any targeted module": it looks for them among modules '
    "alone, and applies them to the parameters that they name."
)
LOADING = "How to load it"
"""The section of the model card that speaks of the adapter as it is registered."""

Tell = Callable[[str], None]
"""Hears what is being done, in a line."""


INSTRUCTED = "Before each question it was trained with this instruction, a JSON string: `{}`"


@dataclass(frozen=True)
class Report:
    """What a check found, as sentences, and as figures for programs. `loaded`: whether it was loaded back here."""

    loaded: bool
    sentences: Sequence[str]
    figures: Mapping[str, float | int | str]


def render(form: str, source: Source, report: Report, file: str = "") -> str:
    """The text, below the hub's YAML header where the model has a card. `file`: the name of a GGUF file."""
    base = repr(source.spec.base.checkpoint)
    if source.spec.base.revision:
        base += f", revision={source.spec.base.revision!r}"
    code = {"peft": PEFT, "unsloth": UNSLOTH, "merged": MERGED, "gguf": LLAMA_CPP}[form]
    lines = code.format(base=base, folder='"."', file=file)
    if form != "gguf":
        asked = json.dumps(f"{source.instruction}Solve for x: 2*x + 3 = 7", ensure_ascii=False)
        lines += GENERATE.format(question=asked, tokens=source.max_new_tokens)
    language = "sh" if form == "gguf" else "python"
    header, about = _of_card(source.card, form)
    said = source.instruction
    parts = [
        *([header] if header else []),
        f"# {source.name} ({form})",
        f"Of the base model {source.spec.base.name}, version {source.spec.base.version or 'not recorded'}. To load it, "
        "in this folder:",
        f"```{language}\n{lines}```",
        *([PATTERNS] if form == "peft" else []),
        *([INSTRUCTED.format(json.dumps(said))] if said else []),
        "## What was checked" if report.loaded else "## Not loaded back",
        "\n".join(as_shown(f"- {sentence}") for sentence in report.sentences),
        *([about] if about else []),
    ]
    return "\n\n".join(parts) + "\n"


def _of_card(card: str, form: str) -> tuple[str, str]:
    """The header of a model card as it is for this form, and its sections but for how the adapter is loaded."""
    if not card.startswith("---\n"):
        return "", ""
    header, _, text = card.removeprefix("---\n").partition("\n---\n")
    if form in ("merged", "gguf"):
        header = header.replace("library_name: peft", f"library_name: {'gguf' if form == 'gguf' else 'transformers'}")
        header = header.replace("base_model_relation: adapter", "base_model_relation: finetune")
    sections = text.partition("\n## ")[2].split("\n## ")
    kept = [section.rstrip() for section in sections if section and not section.startswith(LOADING)]
    return f"---\n{header}\n---", "\n\n".join(f"## {section}" for section in kept)
