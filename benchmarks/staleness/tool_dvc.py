"""DVC: stages in dvc.yaml with deps, params and outs; `dvc repro` builds, `dvc status` reports.

Each stage declares its inputs, its own code file and the module that it imports directly. The base model's path comes
from settings.yaml through DVC's templating (`vars`).
"""

import json
import re
from pathlib import Path
from typing import ClassVar

from chain import STAGES
from tool import Tool

PIPELINE = """\
vars:
  - settings.yaml
stages:
  raw:
    cmd: python stages/raw.py out/raw.json source.jsonl
    deps: [source.jsonl, stages/raw.py]
    outs: [out/raw.json]
  split:
    cmd: python stages/split.py out/split.json out/raw.json ${base}
    deps: [out/raw.json, "${base}", stages/split.py, stages/rows.py]
    outs: [out/split.json]
  train:
    cmd: python stages/train.py out/train.json out/split.json ${base} lr=${train.lr}
    deps: [out/split.json, "${base}", stages/train.py, requirements.txt]
    params: [train.lr]
    outs: [out/train.json]
  evaluate:
    cmd: python stages/evaluate.py out/evaluate.json out/train.json out/split.json rows=${evaluate.rows}
    deps: [out/train.json, out/split.json, stages/evaluate.py]
    params: [evaluate.rows]
    outs: [out/evaluate.json]
  register:
    cmd: python stages/register.py out/register.json out/train.json out/evaluate.json
    deps: [out/train.json, out/evaluate.json, stages/register.py]
    outs: [out/register.json]
"""


class Dvc(Tool):
    """`dvc repro`, with the run cache that is on by default."""

    name: ClassVar[str] = "dvc"
    title: ClassVar[str] = "DVC"
    packages: ClassVar[tuple[str, ...]] = ("dvc",)
    versions: ClassVar[tuple[str, ...]] = ("dvc", "dvc-data")
    scheduler: ClassVar[str] = "docs: no scheduler"
    state: ClassVar[tuple[str, ...]] = (".dvc/tmp", ".dvc/site", "out")  # git and the cache bring the rest

    def tool_environment(self, root: Path) -> dict[str, str]:
        return {"DVC_NO_ANALYTICS": "1", "DVC_SITE_CACHE_DIR": str(root / ".dvc/site")}

    def setup(self, root: Path) -> None:
        self.must(root, ["dvc", "init", "--no-scm", "-q"])
        self.must(root, ["dvc", "config", "core.analytics", "false"])
        self.must(root, ["dvc", "config", "core.check_update", "false"])
        (root / "dvc.yaml").write_text(PIPELINE)

    def command(self, root: Path) -> list[str]:
        return ["dvc", "repro"]

    def status(self, root: Path) -> set[str]:
        report = json.loads(self.must(root, ["dvc", "status", "--json"]).splitlines()[-1])
        return {stage for stage in report if stage in STAGES}

    def forget(self, root: Path, stage: str) -> bool:
        """Take the stage's entry out of dvc.lock, as a merge gone wrong would; the run cache keeps its own."""
        lock = root / "dvc.lock"
        text = lock.read_text()
        lock.write_text(re.sub(rf"^  {stage}:\n(?:    .*\n|  - .*\n)+", "", text, flags=re.MULTILINE))
        return lock.read_text() != text
