"""Dagster alone: assets with hand-written code versions, data versions from the outputs' hashes.

Outside files (the source, the base model, requirements.txt) are observable source assets whose data version is the
file's hash. Parameters are run config, as the documentation has it. Three columns: `--select '*'`; launches of what
Dagster's own stale-status resolver marks (the same as the button "Materialize unsynced" and
`RunRequest(stale_assets_only=True)`), until it marks nothing; and the latter with parameters observed as files too.
"""

import json
import re
from pathlib import Path
from typing import ClassVar

from chain import values
from tool import Done, Tool

DEFINITIONS = '''\
"""The chain as Dagster assets."""

import hashlib
import os
from pathlib import Path

import dagster as dg
import evaluate as evaluate_stage
import raw as raw_stage
import register as register_stage
import split as split_stage
import toyio
import train as train_stage
import yaml

ROOT = Path(__file__).parent
BASE = ROOT / yaml.safe_load((ROOT / "settings.yaml").read_text())["base"]
CODE_VERSION = {"raw": "1", "split": "1", "train": "1", "evaluate": "1", "register": "1"}
OBSERVED_PARAMETERS = os.environ.get("TOY_PARAMETERS") == "observed"


def version(content):
    return dg.DataVersion(hashlib.sha256(content).hexdigest())


def out(stage):
    return str(ROOT / "out" / (stage + ".json"))


def perform(stage, build, inputs, values=None):
    text = toyio.perform(stage, build, out(stage), inputs, values or {})
    return dg.MaterializeResult(data_version=version(text.encode()))


def parameter(stage, key):
    return yaml.safe_load((ROOT / "params.yaml").read_text())[stage][key]


@dg.observable_source_asset
def source():
    return version((ROOT / "source.jsonl").read_bytes())


@dg.observable_source_asset
def base():
    return version(BASE.read_bytes())


@dg.observable_source_asset
def requirements():
    return version((ROOT / "requirements.txt").read_bytes())


@dg.observable_source_asset
def learning_rate():
    return version(str(parameter("train", "lr")).encode())


@dg.observable_source_asset
def evaluated_rows():
    return version(str(parameter("evaluate", "rows")).encode())


class Train(dg.Config):
    lr: float


class Evaluate(dg.Config):
    rows: int


@dg.asset(deps=[source], code_version=CODE_VERSION["raw"])
def raw():
    return perform("raw", raw_stage.build, [ROOT / "source.jsonl"])


@dg.asset(deps=[raw, base], code_version=CODE_VERSION["split"])
def split():
    return perform("split", split_stage.build, [out("raw"), BASE])


def do_train(lr):
    return perform("train", train_stage.build, [out("split"), BASE], {"lr": lr})


def do_evaluate(rows):
    return perform("evaluate", evaluate_stage.build, [out("train"), out("split")], {"rows": rows})


if OBSERVED_PARAMETERS:

    @dg.asset(deps=[split, base, requirements, learning_rate], code_version=CODE_VERSION["train"])
    def train():
        return do_train(parameter("train", "lr"))

    @dg.asset(deps=[train, split, evaluated_rows], code_version=CODE_VERSION["evaluate"])
    def evaluate():
        return do_evaluate(parameter("evaluate", "rows"))

else:

    @dg.asset(deps=[split, base, requirements], code_version=CODE_VERSION["train"])
    def train(config: Train):
        return do_train(config.lr)

    @dg.asset(deps=[train, split], code_version=CODE_VERSION["evaluate"])
    def evaluate(config: Evaluate):
        return do_evaluate(config.rows)


@dg.asset(deps=[train, evaluate], code_version=CODE_VERSION["register"])
def register():
    return perform("register", register_stage.build, [out("train"), out("evaluate")])


def config_for(names):
    """Run config for the chosen assets."""
    if OBSERVED_PARAMETERS:
        return {}
    chosen = {"train": {"lr": parameter("train", "lr")}, "evaluate": {"rows": parameter("evaluate", "rows")}}
    return {"ops": {name: {"config": config} for name, config in chosen.items() if name in names}}


observed = [source, base, requirements] + ([learning_rate, evaluated_rows] if OBSERVED_PARAMETERS else [])
defs = dg.Definitions(assets=[*observed, raw, split, train, evaluate, register], executor=dg.in_process_executor)
'''

STALE = '''\
"""Print which assets Dagster's stale-status resolver does not call fresh; with `launch`, materialize these.

The outside files are observed first. A launch is one run of exactly the marked assets, in the instance; launches are
repeated until none is marked.
"""

import json
import sys

import dagster as dg
from dagster._core.definitions.data_version import CachingStaleStatusResolver
from dagster._core.definitions.observe import observe
from dagster._core.loader import LoadingContextForTest
from definitions import config_for, defs, observed

MOST_LAUNCHES = 8


def marked(instance):
    graph = defs.resolve_asset_graph()
    resolver = CachingStaleStatusResolver(instance, graph, LoadingContextForTest(instance))
    marks = {key.to_user_string(): resolver.get_status(key).value for key in graph.materializable_asset_keys}
    return sorted(name for name, mark in marks.items() if mark != "FRESH")


with dg.DagsterInstance.get() as instance:
    observe(observed, instance=instance)
    names = marked(instance)
    if sys.argv[1:] == ["launch"]:
        for count in range(MOST_LAUNCHES):
            if not names:
                break
            print(f"LAUNCH {json.dumps(names)}", flush=True)
            dg.materialize(list(defs.assets), selection=names, instance=instance, run_config=config_for(names))
            names = marked(instance)
print("STALE " + json.dumps(names))
'''


class DagsterAll(Tool):
    """`dagster asset materialize --select '*'`."""

    name: ClassVar[str] = "dagster"
    title: ClassVar[str] = "Dagster, `--select '*'`"
    packages: ClassVar[tuple[str, ...]] = ("dagster",)
    versions: ClassVar[tuple[str, ...]] = ("dagster",)
    scheduler: ClassVar[str] = "docs: schedules; this selection has no condition"
    state: ClassVar[tuple[str, ...]] = ("dagster_home",)
    parameters: ClassVar[str] = "config"

    def tool_environment(self, root: Path) -> dict[str, str]:
        return {"DAGSTER_HOME": str(root / "dagster_home"), "TOY_PARAMETERS": self.parameters}

    def setup(self, root: Path) -> None:
        self.instance(root)
        (root / "definitions.py").write_text(DEFINITIONS)
        (root / "stale.py").write_text(STALE)
        self.status(root)  # observes the outside files, so that the first materializations know their versions

    def instance(self, root: Path) -> None:
        """An instance inside the project, also on a machine that lacks one."""
        (root / "dagster_home").mkdir(exist_ok=True)
        (root / "dagster_home/dagster.yaml").write_text("telemetry:\n  enabled: false\n")

    def command(self, root: Path) -> list[str]:
        self.instance(root)
        command = ["dagster", "asset", "materialize", "-f", "definitions.py", "--select", "*"]
        given = values(root)
        config = {"train": {"lr": float(given["lr"])}, "evaluate": {"rows": int(given["rows"])}}
        return [*command, "--config-json", json.dumps({"ops": {op: {"config": keys} for op, keys in config.items()}})]

    def status(self, root: Path) -> set[str]:
        self.instance(root)
        text = self.must(root, ["python", "stale.py"])
        return set(json.loads(re.findall(r"^STALE (.*)$", text, re.MULTILINE)[-1]))

    def code_edited(self, root: Path, stage: str) -> None:
        """Write the stage's next code version by hand."""
        path = root / "definitions.py"
        path.write_text(re.sub(rf'"{stage}": "1"', f'"{stage}": "2"', path.read_text(), count=1))

    def forget(self, root: Path, stage: str) -> bool:
        """Wipe the asset's materializations."""
        self.must(root, ["dagster", "asset", "wipe", stage, "--noprompt"])
        return True


class DagsterStale(DagsterAll):
    """What the resolver marks stale, launched until it marks nothing."""

    name: ClassVar[str] = "dagster-stale"
    title: ClassVar[str] = "Dagster, stale ones only"
    scheduler: ClassVar[str] = "docs: yes, by `stale_assets_only` or conditions"

    def command(self, root: Path) -> list[str]:
        self.instance(root)
        return ["python", "stale.py", "launch"]

    def launches(self, done: Done) -> int:
        return done.text.count("\nLAUNCH ") + done.text.startswith("LAUNCH ")


class DagsterObserved(DagsterStale):
    """The same, with the parameters as observable source assets."""

    name: ClassVar[str] = "dagster-observed"
    title: ClassVar[str] = "Dagster, stale ones only, parameters observed"
    parameters: ClassVar[str] = "observed"
