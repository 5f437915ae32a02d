"""The toy chain: raw -> split -> train -> evaluate -> register, in plain Python, the same for every tool.

`write_project` writes it. A stage's module has `build(texts..., values...) -> text`, which is all of its work;
`toyio.py` reads, writes and appends the stage's name to the log of executions. `split` reaches `clean.py` through
`rows.py`.
`truth` computes what each stage should hold now, by calling `build` in order without any tool.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

STAGES = ("raw", "split", "train", "evaluate", "register")
OUTPUTS = {stage: f"out/{stage}.json" for stage in STAGES}
BASE = "base/model.bin"

TOYIO = '''"""What every stage shares: the log of executions, reading, writing."""

import os
import sys
import time
from pathlib import Path


def note(stage):
    """Append the stage's name to the log of executions; wait if the comparison asks for it."""
    with open(os.environ["TOY_LOG"], "a") as log:
        log.write(stage + "\\n")
    time.sleep(float(os.environ.get("TOY_PAUSE", "0")))


def hang(stage):
    """Stay in the middle of the stage, if the comparison asks for it."""
    if os.environ.get("TOY_HANG") == stage:
        Path(os.environ["TOY_LOG"] + ".hangs").touch()
        time.sleep(600)


def write(stage, path, text):
    """Write as most scripts do, straight to the place; a hanging stage has written half."""
    Path(path).parent.mkdir(exist_ok=True)
    with open(path, "w") as file:
        if os.environ.get("TOY_HANG") == stage:
            file.write(text[: len(text) // 2])
            file.flush()
            hang(stage)
        file.write(text)


def perform(stage, build, output, inputs, values):
    """One stage from files to a file."""
    note(stage)
    text = build(*[Path(path).read_text() for path in inputs], **values)
    write(stage, output, text)
    return text


def main(stage, build, snakemake=None):
    """A stage as a script: OUTPUT INPUT... NAME=VALUE..., or from Snakemake's own object."""
    if snakemake is not None:
        perform(stage, build, snakemake.output[0], list(snakemake.input.data), dict(snakemake.params.items()))
        return
    output, *rest = sys.argv[1:]
    values = dict(word.split("=", 1) for word in rest if "=" in word)
    perform(stage, build, output, [word for word in rest if "=" not in word], values)
'''

TAIL = '\n\nif __name__ == "__main__":\n    toyio.main("{0}", build, globals().get("snakemake"))\n'

RAW = '''"""Take the source as it is."""

import toyio


def build(source):
    """One row a line, blank lines dropped."""
    return "\\n".join(line for line in source.splitlines() if line.strip()) + "\\n"
'''

SPLIT = '''"""Keep the rows that can be graded."""

import hashlib
import json

import toyio
from rows import kept


def build(raw, base):
    """The rows that stay, under the hash of the base model."""
    rows = [json.loads(line) for line in raw.splitlines()]
    good = [row for row in (kept(row) for row in rows) if row]
    return json.dumps({"base": hashlib.sha256(base.encode()).hexdigest()[:12], "rows": good})
'''

ROWS = '''"""Which rows are kept."""

from clean import tidy


def kept(row):
    """The row with a tidy problem, or None if its answer is no number."""
    return {"problem": tidy(row["problem"]), "answer": row["answer"]} if row["answer"].isdigit() else None
'''

CLEAN = '''"""How a problem's text is tidied."""


def tidy(text):
    """One spelling."""
    return text.strip().lower()
'''

TRAIN = '''"""An adapter from the split and the base model."""

import hashlib
import json

import toymath
import toyio


def build(split, base, lr):
    """A hash for weights; the library's function decides the scale."""
    weights = hashlib.sha256(f"{split}|{base}|{lr}".encode()).hexdigest()
    return json.dumps({"weights": weights, "scale": toymath.scale(float(lr))})
'''

EVALUATE = '''"""How good the adapter is."""

import hashlib
import json

import toyio


def build(adapter, split, rows):
    """A hash for an accuracy."""
    measured = f"{adapter}|{json.loads(split)['rows'][: int(rows)]}|{rows}"
    return json.dumps({"accuracy": hashlib.sha256(measured.encode()).hexdigest()[:8], "rows": int(rows)})
'''

REGISTER = '''"""A registered model from the adapter and its evaluation."""

import hashlib
import json

import toyio


def build(adapter, evaluation):
    """A name for both."""
    return json.dumps({"model": hashlib.sha256((adapter + evaluation).encode()).hexdigest()[:12]})
'''

SOURCES = {"raw": RAW, "split": SPLIT, "train": TRAIN, "evaluate": EVALUATE, "register": REGISTER}


def write_project(root: Path) -> None:
    """The chain's files, parameters, data, a base model and two libraries, without any tool's own files."""
    for folder in ("stages", "base", "site/toymath", "site/toyplot"):
        (root / folder).mkdir(parents=True)
    for stage, text in SOURCES.items():
        (root / f"stages/{stage}.py").write_text(text + TAIL.format(stage))
    for name, text in {"toyio": TOYIO, "rows": ROWS, "clean": CLEAN}.items():
        (root / f"stages/{name}.py").write_text(text)
    rows = [{"problem": f" What is {n} + {n}? ", "answer": str(2 * n) if n % 3 else "?"} for n in range(12)]
    (root / "source.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (root / BASE).write_text("base model, version 1\n")
    (root / "params.yaml").write_text("train:\n  lr: 0.1\nevaluate:\n  rows: 4\n")
    (root / "settings.yaml").write_text(f"base: {BASE}\n")
    set_library(root, "toymath", "1.0")
    set_library(root, "toyplot", "1.0")


def set_library(root: Path, name: str, version: str) -> None:
    """`Install` a version of a library beside the chain and write requirements.txt, as pip freeze would."""
    (root / f"site/{name}/__init__.py").write_text(
        f'__version__ = "{version}"\n\n\ndef scale(x):\n    return x * {version}\n'
    )
    found = {}
    for folder in sorted((root / "site").iterdir()):
        text = (folder / "__init__.py").read_text() if (folder / "__init__.py").exists() else ""
        found[folder.name] = (re.findall(r'__version__ = "(.+)"', text) or ["?"])[0]
    (root / "requirements.txt").write_text("".join(f"{key}=={value}\n" for key, value in found.items()))


def edit(path: Path, old: str, new: str) -> None:
    """Replace `old`, which must be there, and write only then."""
    text = path.read_text()
    if old not in text:
        raise ValueError(f"{path.name} has no {old!r}")
    path.write_text(text.replace(old, new))


def append_row(root: Path, problem: str, answer: str) -> None:
    """One more row at the end of the source."""
    with (root / "source.jsonl").open("a") as file:
        file.write(json.dumps({"problem": problem, "answer": answer}) + "\n")


def values(root: Path) -> dict[str, str]:
    """The two parameters and the place of the base model, as the project's files give them now."""
    text = (root / "params.yaml").read_text() + (root / "settings.yaml").read_text()
    return {key: re.findall(rf"{key}: (\S+)", text)[0] for key in ("lr", "rows", "base")}


TRUTH = """
import json, sys
from pathlib import Path
sys.path[:0] = ["stages", "site"]
import raw, split, train, evaluate, register
lr, rows, base = sys.argv[1:]
base = Path(base).read_text()
out = {"raw": raw.build(Path("source.jsonl").read_text())}
out["split"] = split.build(out["raw"], base)
out["train"] = train.build(out["split"], base, lr)
out["evaluate"] = evaluate.build(out["train"], out["split"], rows)
out["register"] = register.build(out["train"], out["evaluate"])
print(json.dumps(out))
"""


def truth(root: Path) -> dict[str, str]:
    """What every stage's output should be for the project as it stands."""
    given = values(root)
    command = [sys.executable, "-B", "-c", TRUTH, given["lr"], given["rows"], given["base"]]
    environment = {"PATH": os.environ["PATH"], "TOY_LOG": os.devnull}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)
