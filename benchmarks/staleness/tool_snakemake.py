"""Snakemake: rules with `script:`, all default rerun triggers; `snakemake --cores 1` builds, `--dry-run` reports.

Each rule declares its data, the module that its script imports directly, and its parameters; the `script:` directive
brings the code trigger. Rule `all` asks for every output.
"""

import re
from pathlib import Path
from typing import ClassVar

from chain import OUTPUTS, STAGES
from tool import Done, Tool

SNAKEFILE = """\
configfile: "params.yaml"
configfile: "settings.yaml"

rule all:
    input: ["out/raw.json", "out/split.json", "out/train.json", "out/evaluate.json", "out/register.json"]

rule raw:
    input: data=["source.jsonl"]
    output: "out/raw.json"
    script: "stages/raw.py"

rule split:
    input: data=["out/raw.json", config["base"]], code=["stages/rows.py"]
    output: "out/split.json"
    script: "stages/split.py"

rule train:
    input: data=["out/split.json", config["base"]], libraries=["requirements.txt"]
    output: "out/train.json"
    params: lr=config["train"]["lr"]
    script: "stages/train.py"

rule evaluate:
    input: data=["out/train.json", "out/split.json"]
    output: "out/evaluate.json"
    params: rows=config["evaluate"]["rows"]
    script: "stages/evaluate.py"

rule register:
    input: data=["out/train.json", "out/evaluate.json"]
    output: "out/register.json"
    script: "stages/register.py"
"""


class Snakemake(Tool):
    """`snakemake --cores 1`, nothing else said."""

    name: ClassVar[str] = "snakemake"
    title: ClassVar[str] = "Snakemake"
    packages: ClassVar[tuple[str, ...]] = ("snakemake",)
    versions: ClassVar[tuple[str, ...]] = ("snakemake",)
    scheduler: ClassVar[str] = "docs: no scheduler"
    state: ClassVar[tuple[str, ...]] = (".snakemake",)

    def setup(self, root: Path) -> None:
        (root / "Snakefile").write_text(SNAKEFILE)

    def command(self, root: Path) -> list[str]:
        return ["snakemake", "--cores", "1"]

    def status(self, root: Path) -> set[str] | None:
        done = self.call(root, [*self.command(root), "--dry-run"])
        found = re.findall(r"^(?:local)?rule (\w+):", done.text, re.MULTILINE)
        return None if done.status else {rule for rule in found if rule in STAGES}

    def forget(self, root: Path, stage: str) -> bool:
        """The documented way to drop a file's metadata."""
        self.must(root, ["snakemake", "--cores", "1", "--cleanup-metadata", OUTPUTS[stage]])
        return True

    def recover(self, root: Path) -> Done:
        """What its own message asks for."""
        self.call(root, ["snakemake", "--cores", "1", "--unlock"])
        return self.call(root, [*self.command(root), "--rerun-incomplete"])


class SnakemakeCache(Snakemake):
    """The same with its between-workflow cache for every rule, a documented option."""

    name: ClassVar[str] = "snakemake-cache"
    title: ClassVar[str] = "Snakemake with `--cache`"
    state: ClassVar[tuple[str, ...]] = (".snakemake", "out")  # the cache brings the outputs

    def tool_environment(self, root: Path) -> dict[str, str]:
        return {"SNAKEMAKE_OUTPUT_CACHE": str(root / "cache")}

    def setup(self, root: Path) -> None:
        super().setup(root)
        (root / "cache").mkdir()

    def command(self, root: Path) -> list[str]:
        return ["snakemake", "--cores", "1", "--cache", *STAGES]
