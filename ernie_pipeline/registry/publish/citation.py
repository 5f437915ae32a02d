"""Whose work a published model stands on: BibTeX entries, and the notice that their licences ask for."""

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from ernie_pipeline.registry.model_card import is_hub_id, shown

Facts = Mapping[str, Any]

PUBLISHED = {
    "baidu/ERNIE-4.5": """\
@misc{ernie2025technicalreport,
  title = {ERNIE 4.5 Technical Report},
  author = {Baidu-ERNIE-Team},
  year = {2025},
  howpublished = {\\url{https://ernie.baidu.com/blog/publication/ERNIE_Technical_Report.pdf}}
}""",
    "nvidia/Nemotron-RL-math-OpenMathReasoning": """\
@misc{moshkov2025aimo2,
  title = {AIMO-2 Winning Solution: Building State-of-the-Art Mathematical Reasoning Models with OpenMathReasoning
           dataset},
  author = {Moshkov, Ivan and Hanley, Darragh and Sorokin, Ivan and Toshniwal, Shubham and Henkel, Christof and
            Schifferer, Benedikt and Du, Wei and Gitman, Igor},
  year = {2025},
  eprint = {2504.16891},
  archivePrefix = {arXiv}
}""",
    "demo": """\
@misc{stojanovski2025reasoninggym,
  title = {REASONING GYM: Reasoning Environments for Reinforcement Learning with Verifiable Rewards},
  author = {Stojanovski, Zafir and Stanley, Oliver and Sharratt, Joe and Jones, Richard and Adefioye, Abdulhakeem and
            Kaddour, Jean and K{\\"o}pf, Andreas},
  year = {2025},
  eprint = {2505.24760},
  archivePrefix = {arXiv}
}""",
}
"""By how the name of the base model or of the data set begins, "demo" by all of it; the demo's problems come from
reasoning-gym."""

OWN = """\
@software{{ernie_pipeline,
  title = {{ernie_pipeline: from maths rows to an evaluated, registered QLoRA adapter}},
  version = {{{version}}},
  license = {{MIT}}
}}"""

LICENSES = {"apache-2.0": "Apache License 2.0", "mit": "MIT License", "cc-by-4.0": "CC BY 4.0"}
TEXTS = {
    "apache-2.0": "https://www.apache.org/licenses/LICENSE-2.0",
    "mit": "https://opensource.org/license/mit",
    "cc-by-4.0": "https://creativecommons.org/licenses/by/4.0/",
}
"""Where licences stand."""


def bibtex(base: Facts, data: Facts, versions: Mapping[str, str]) -> str:
    """The entries of the base model, the data set and this package; facts as `model_card` takes them.

    `versions`: those of the sources base_model and nemotron_source.
    """
    entries = [
        _entry(base["name"], "base model", versions.get("base_model", "")),
        _entry(data["name"], "data set", versions.get("nemotron_source", "")),
        OWN.format(version=_own_version()),
    ]
    return "\n\n".join(dict.fromkeys(entry for entry in entries if entry)) + "\n"


def notice(license: str, base: Facts, data: Facts) -> str:
    """NOTICE: what the model is made of, whose that is, under which licence, and that it was changed."""
    where = TEXTS.get(license, "https://spdx.org/licenses/")
    text = "its text is in LICENSE" if license == "apache-2.0" else f"its text: {where}"
    lines = [
        f"This model is licensed under {LICENSES.get(license, license)} ({text}).",
        f"It is derived from the base model {_named(base['name'], 'models')}, Apache License 2.0: an adapter was "
        "trained on its weights, and where merged weights are here, they are the base model's, changed by the adapter.",
        f"It was trained on rows of {_named(data['name'], 'datasets')}, {_licensed(data['license'])}: filtered, "
        "put into the base model's chat template and divided; none of them is in these files.",
    ]
    return "\n\n".join(lines) + "\n"


def _licensed(license: str) -> str:
    name = LICENSES.get(license, license)
    return f"{name} ({TEXTS[license]})" if license in TEXTS else name


def _named(name: str, kind: str) -> str:
    if name == "demo":
        made = "ernie_pipeline's demo, made with reasoning-gym (https://github.com/open-thought/reasoning-gym)"
        return made if kind == "datasets" else "of ernie_pipeline's demo"
    place = "datasets/" if kind == "datasets" else ""
    return f"{name} (https://huggingface.co/{place}{name})" if is_hub_id(name) else shown(name)


def _entry(name: str, what: str, version: str) -> str:
    for begins, entry in PUBLISHED.items():
        if name == begins or (begins != "demo" and name.startswith(begins)):
            return entry
    if not is_hub_id(name):
        return ""
    owner, title = name.split("/")
    place = "datasets/" if what == "data set" else ""
    return (
        f"@misc{{{title.lower()},\n  title = {{{title} ({what})}},\n  author = {{{owner}}},\n"
        f"  note = {{{version}}},\n  howpublished = {{\\url{{https://huggingface.co/{place}{name}}}}}\n}}"
    )


def _own_version() -> str:
    try:
        return version("ernie_pipeline")
    except PackageNotFoundError:  # run from a checkout
        return "unknown"
