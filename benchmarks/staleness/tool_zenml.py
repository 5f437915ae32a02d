"""ZenML: steps that return their output, with its caching on (the default) and a cache policy per step.

The policy lists the files that a step reads and, as source dependencies, the stage's function and the helper that it
calls directly. Outputs lie in the local artifact store. There is no report of what a run would execute.
"""

import json
import re
from pathlib import Path
from typing import ClassVar

from tool import Tool

PIPELINE = '''\
"""The chain as a ZenML pipeline."""

from pathlib import Path

import evaluate as evaluate_stage
import raw as raw_stage
import register as register_stage
import rows as rows_module
import split as split_stage
import toyio
import train as train_stage
import yaml
from zenml import pipeline, step
from zenml.config.cache_policy import CachePolicy

ROOT = Path(__file__).parent
BASE = yaml.safe_load((ROOT / "settings.yaml").read_text())["base"]


def policy(*objects, files=()):
    return CachePolicy(source_dependencies=list(objects), file_dependencies=list(files))


def begin(stage):
    toyio.note(stage)
    toyio.hang(stage)


@step(cache_policy=policy(raw_stage.build, files=["source.jsonl"]))
def raw() -> str:
    begin("raw")
    return raw_stage.build((ROOT / "source.jsonl").read_text())


@step(cache_policy=policy(split_stage.build, rows_module.kept, files=[BASE]))
def split(raw: str) -> str:
    begin("split")
    return split_stage.build(raw, (ROOT / BASE).read_text())


@step(cache_policy=policy(train_stage.build, files=[BASE, "requirements.txt"]))
def train(split: str, lr: float) -> str:
    begin("train")
    return train_stage.build(split, (ROOT / BASE).read_text(), lr)


@step(cache_policy=policy(evaluate_stage.build))
def evaluate(adapter: str, split: str, rows: int) -> str:
    begin("evaluate")
    return evaluate_stage.build(adapter, split, rows)


@step(cache_policy=policy(register_stage.build))
def register(adapter: str, evaluation: str) -> str:
    begin("register")
    return register_stage.build(adapter, evaluation)


@pipeline
def chain(lr: float, rows: int):
    kept = split(raw())
    adapter = train(kept, lr)
    register(adapter, evaluate(adapter, kept, rows))


if __name__ == "__main__":
    given = yaml.safe_load((ROOT / "params.yaml").read_text())
    chain(given["train"]["lr"], given["evaluate"]["rows"])
'''

WHERE = '''\
"""Print the place of every output of the last run."""

import json

from zenml.client import Client

steps = Client().get_pipeline("chain").last_run.steps
places = {name: step.output.uri + "/data.json" for name, step in steps.items() if step.outputs}
print("WHERE " + json.dumps(places))
'''


class Zenml(Tool):
    """`python pipeline.py` on the default local stack."""

    name: ClassVar[str] = "zenml"
    title: ClassVar[str] = "ZenML"
    packages: ClassVar[tuple[str, ...]] = ("zenml[local]",)
    versions: ClassVar[tuple[str, ...]] = ("zenml",)
    scheduler: ClassVar[str] = "docs: schedules, not on the local stack"
    state: ClassVar[tuple[str, ...]] = ("zenml_config",)

    def tool_environment(self, root: Path) -> dict[str, str]:
        return {
            "ZENML_CONFIG_PATH": str(root / "zenml_config"),
            "ZENML_ANALYTICS_OPT_IN": "false",
            "ZENML_LOGGING_COLORS_DISABLED": "true",
        }

    def setup(self, root: Path) -> None:
        (root / "pipeline.py").write_text(PIPELINE)
        (root / "where.py").write_text(WHERE)
        self.must(root, ["zenml", "status"])  # creates the database, which two first runs at once cannot

    def command(self, root: Path) -> list[str]:
        return ["python", "pipeline.py"]

    def status(self, root: Path) -> None:
        return None

    def places(self, root: Path) -> dict[str, Path]:
        """Where the last run's outputs lie."""
        text = self.call(root, ["python", "where.py"]).text
        found = re.findall(r"^WHERE (.*)$", text, re.MULTILINE)
        return {stage: Path(path) for stage, path in json.loads(found[-1]).items()} if found else {}

    def artifact(self, root: Path, stage: str) -> Path:
        return self.places(root)[stage]

    def outputs(self, root: Path) -> dict[str, str]:
        outputs = {}
        for stage, path in self.places(root).items():
            if path.is_file():
                text = path.read_text()
                try:
                    outputs[stage] = json.loads(text)
                except ValueError:
                    outputs[stage] = text
        return outputs
