"""What each step says of its asset: why it was built, where its artifact is, and the tags by which Dagster marks it."""

import json
import logging
import socket
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from ernie_pipeline.definitions import defs
from ernie_pipeline.orchestration import report
from ernie_pipeline.orchestration.assets.raw_nemotron import raw_nemotron as make_raw_nemotron
from ernie_pipeline.orchestration.origin import origin
from ernie_pipeline.orchestration.recipes import RecipeAssets
from ernie_pipeline.orchestration.report import build_or_reuse, version_tags
from ernie_pipeline.staleness import chain
from ernie_pipeline.staleness.code import Module
from ernie_pipeline.staleness.stage import EARLIER_ADAPTER, Work
from ernie_pipeline.store.artifacts import Artifact, Check
from ernie_pipeline_tests.scenarios.chain import rows, write_rows


def test_a_result_names_a_version_of_each_asset_above_and_of_nothing_else() -> None:
    """A round before is no asset; one that the recipe does not let read the rows depends on them in Dagster's eyes."""
    made_from = {"declared_version": "c0de", "inputs": {"base_model": "sha256:1", EARLIER_ADAPTER: "2"}}
    assert version_tags(made_from, unread={"math_split": "3"}, recipe=RecipeAssets("demo")) == {
        "dagster/code_version": "c0de",
        "dagster/input_data_version/base_model": "sha256:1",
        "dagster/input_data_version/math_split": "3",
    }


def test_the_page_of_what_is_in_a_bucket_names_it_there_and_here_only_what_is_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another machine's path would lead nowhere on the one that shows the page."""
    manifest = {"stage": "math_split", "fingerprint": "f00d", "seconds": 1.0, "built": "2026-01-01", "cost": None}
    artifact = Artifact(tmp_path / "here", manifest)
    monkeypatch.setenv("ERNIE_PIPELINE_HOME", str(tmp_path))
    assert origin(artifact)["artifact"].path == str(tmp_path / "here")
    monkeypatch.setenv("ERNIE_PIPELINE_HOME", "s3://bucket/home/")
    told = origin(artifact)
    assert told["artifact"].text == "s3://bucket/home/store/math_split/f00d"
    assert not [name for name in told if name.startswith("copy")]
    artifact.folder.mkdir()
    assert origin(artifact)[f"copy on {socket.gethostname()}"].path == str(artifact.folder)


RAW = make_raw_nemotron(RecipeAssets("demo"))


class Steps:
    """Runs of the asset `raw_nemotron` on rows of its own, and what each of them said."""

    def __init__(self, folder: Path):
        self.rows, self.instance = folder / "rows.jsonl", dg.DagsterInstance.ephemeral()

    def run(self, asset: dg.AssetsDefinition = RAW) -> tuple[dict[str, Any], dict[str, list[str]]]:
        """The metadata of the materialization, and the lines of the log by their level."""
        result = dg.materialize([asset], instance=self.instance)
        [made] = result.asset_materializations_for_node(asset.op.name)
        lines: dict[str, list[str]] = {}
        for entry in self.instance.all_logs(result.run_id):
            if not entry.is_dagster_event:
                lines.setdefault(logging.getLevelName(entry.level), []).append(entry.user_message)
        return {name: value.value for name, value in made.metadata.items()}, lines


@pytest.fixture
def steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Steps:
    made = Steps(tmp_path)
    write_rows(made.rows, rows(range(9)))
    for name, value in {"HOME": tmp_path / "home", "SOURCE": made.rows}.items():
        monkeypatch.setenv(f"ERNIE_PIPELINE_{name}", str(value))
    return made


def test_why_it_was_built_stands_on_the_page_and_in_the_log(steps: Steps) -> None:
    page, log = steps.run()
    assert (page["why"], page["reused"]) == ("not built yet", False)
    assert log["INFO"][0] == "building raw_nemotron: not built yet"
    write_rows(steps.rows, rows(range(8)))
    page, log = steps.run()
    assert page["why"].startswith("input nemotron_source ")
    assert log["INFO"][0] == f"building raw_nemotron: {page['why']}"


def test_what_is_reused_says_so_why_it_was_built_and_in_which_folder_it_is(steps: Steps) -> None:
    steps.run()
    page, log = steps.run()
    assert page["why"].startswith("reused, no work was done: nothing that it depends on has changed since 20")
    assert (page["why it was built then"], page["reused"]) == ("it was the first build", True)
    [line] = log["INFO"]
    assert line.startswith(f"reused: raw_nemotron {Path(page['artifact']).name} from 20")
    assert Path(line.rpartition(": ")[2]).is_dir()


def test_damage_is_told_as_the_reason(steps: Steps) -> None:
    folder = Path(steps.run()[0]["artifact"])
    (folder / "rows.parquet").write_bytes(b"")
    page, log = steps.run()
    assert page["why"] == "artifact altered: rows.parquet"
    assert log["WARNING"] == ["raw_nemotron was built again: artifact altered: rows.parquet"]


def test_a_check_that_fails_without_stopping_anything_is_a_warning_on_the_page_and_in_the_log(steps: Steps) -> None:
    @dg.asset(name="raw_nemotron", check_specs=[dg.AssetCheckSpec("gate", asset="raw_nemotron")])
    def refused(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        def write(work: Work, out: Path) -> Iterable[Check]:
            (out / "made.json").write_text(json.dumps(1))
            return [Check("gate", False, "the gain is too small", blocking=False)]

        return build_or_reuse(context, write, lambda artifact: {})

    for _ in ("built", "reused"):
        page, log = steps.run(refused)
        assert page["warning"] == "gate: the gain is too small"
        assert log["WARNING"] == ["raw_nemotron: the check gate: the gain is too small"]


def edited_after(name: str, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module of a stage's code is another one as soon as its step is done."""
    read, done = chain.read_module, [False]

    def now(asked: str) -> Module | None:
        found = read(asked)
        return replace(found, shape="edited") if found and done[0] and asked == module else found

    def tell(context: dg.AssetExecutionContext, told: str, artifact: Artifact) -> None:
        done[0] = done[0] or told == name

    monkeypatch.setattr(chain, "read_module", now)
    monkeypatch.setattr(report, "_say_what_became_of_it", tell)


def why_split_failed(assets: list[str], instance: dg.DagsterInstance) -> str:
    job = defs.resolve_implicit_global_asset_job_def()
    result = job.execute_in_process(
        instance=instance, asset_selection=[*map(dg.AssetKey, assets)], raise_on_error=False
    )
    failed = result.failure_data_for_node("math_split")
    assert failed
    assert failed.user_failure_data
    return str(failed.user_failure_data.description)


def test_code_that_is_edited_under_a_run_is_run_again_and_what_it_never_built_is_selected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ERNIE_PIPELINE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ERNIE_PIPELINE_SOURCE", write_rows(tmp_path / "rows.jsonl", rows(range(20))))
    module = "ernie_pipeline.data.make_raw"
    with dg.DagsterInstance.ephemeral() as instance:
        edited_after("raw_nemotron", module, monkeypatch)
        said = why_split_failed(["raw_nemotron", "math_split"], instance)
        assert said.startswith("raw_nemotron, which this run has built or reused, is not what is asked for any more: ")
        assert module.removeprefix("ernie_pipeline.") in said
        assert said.endswith("; run it again")
        said = why_split_failed(["math_split"], instance)
        assert said.startswith("raw_nemotron for this recipe: not built yet")
        assert '--select "*math_split"' in said
