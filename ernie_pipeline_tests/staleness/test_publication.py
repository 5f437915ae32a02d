"""The asset that is there only where the recipe says so, and what is told before it is built."""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from ernie_pipeline.cli.app import main
from ernie_pipeline.cli.plan import render_plan
from ernie_pipeline.recipe.settings import Settings, sqlite_uri
from ernie_pipeline.registry.tracking import CHECKED, connected
from ernie_pipeline.staleness.chain import Chain
from ernie_pipeline.staleness.elsewhere import lost_publication, publication_refused, publication_told
from ernie_pipeline.staleness.plan import RefreshPlan, make_plan
from ernie_pipeline.staleness.published import PUBLISHED
from ernie_pipeline.staleness.stages import STAGES, declared_versions, open_chain
from ernie_pipeline.store.artifacts import ArtifactStore
from ernie_pipeline.utils.json_file import write_json
from ernie_pipeline_tests.registry.publish.hub import serving
from ernie_pipeline_tests.staleness.chains import built, chain_of, recipe_with, walk

ASKED = recipe_with(publish={"repo": "me/model"})


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "store")


def plan_of(store: ArtifactStore, why: str, asked: list[bool]) -> RefreshPlan:
    """The plan of a recipe with [publish], where the hub refuses with `why`; `asked`: whether it is certain."""

    def refused(certain: bool) -> str:
        asked.append(certain)
        return why

    chain = chain_of(store, ASKED)
    chain.refused[PUBLISHED] = refused
    return make_plan(chain)


def test_it_is_one_stage_more_and_moves_no_other(store: ArtifactStore) -> None:
    assert PUBLISHED not in STAGES
    walk(chain_of(store))
    assert built(walk(chain_of(store, ASKED))) == [PUBLISHED]
    assert built(walk(chain_of(store, recipe_with(publish={"repo": "me/model", "private": False})))) == [PUBLISHED]
    assert built(walk(chain_of(store, ASKED))) == []
    assert built(walk(chain_of(store))) == []


def test_what_is_fresh_asks_nobody(store: ArtifactStore) -> None:
    walk(chain_of(store, ASKED))
    asked: list[bool] = []
    assert plan_of(store, "no", asked).fresh
    assert asked == []


def test_a_refusal_is_told_by_the_plan_before_anything_is_built(store: ArtifactStore) -> None:
    asked: list[bool] = []
    plan = plan_of(store, "there is no token", asked)
    assert (asked, plan.refused) == ([True], f"{PUBLISHED} cannot be built: there is no token")
    assert render_plan(plan).endswith(f" {PUBLISHED} cannot be built: there is no token.")
    walk(chain_of(store, ASKED))
    (chain_of(store, ASKED).artifact("math_split").folder / "output.json").unlink()
    plan_of(store, "", asked)
    assert asked == [True, False], "what waits may come out as it was"


def test_whether_a_tag_is_taken_counts_where_something_new_is_to_be_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    publish = recipe_with(publish={"repo": "me/model", "tag": "v1"}).publish
    with serving() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", "hf_writes")
        repository = hub.make("me/model")
        repository.tags["v1"] = "0" * 40
        refused = partial(publication_refused, publish, ArtifactStore(tmp_path))
        assert refused(False) == ""
        assert refused(True).startswith("me/model has a tag v1 already")
        repository.tags["v1"] = repository.head
        assert refused(True) == "", "a run may have been cut off before its record"
        recorded = tmp_path / PUBLISHED / "f00d"
        recorded.mkdir(parents=True)
        (recorded / "publication.json").write_text(json.dumps({"commit": repository.head}))
        assert refused(True).startswith("me/model has a tag v1 already")


def test_after_a_rollback_the_plan_says_what_is_published_and_the_next_refresh_of_the_champion_publishes_that(
    tmp_path: Path, store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "")  # the repository is private, so nobody asks whether its commits are there
    settings = Settings(tmp_path, "demo", None, sqlite_uri(tmp_path / "mlflow.db"))
    recipes = [recipe_with(publish={"repo": "me/model", "license": name}) for name in ("mit", "apache-2.0")]

    def published(number: int) -> Chain:
        """The chain of the recipe of a version, walked."""
        chain = chain_of(store, recipes[number - 1])
        chain._lost[PUBLISHED] = partial(lost_publication, settings, store)
        chain.told[PUBLISHED] = partial(publication_told, settings, "me/model", store)
        told = {"name": "quick", "version": str(number), "repo": "me/model", "private": True}
        told |= {"published": True, "commit": str(number) * 40}
        walk(chain, published_model=lambda work, out: write_json(out / "publication.json", told))
        return chain

    def plan(chain: Chain) -> tuple[str, str, str]:
        made = make_plan(chain)
        asset = next(each for each in made.assets if each.asset == PUBLISHED)
        assert (asset.told in render_plan(made)) or not asset.told
        return asset.state, "; ".join(asset.reasons), asset.told

    with connected(settings.tracking_uri) as client:
        client.create_registered_model("quick")
        for number in (1, 2):
            client.create_model_version("quick", source="file:///", tags={CHECKED: "0"})
            client.set_registered_model_alias("quick", "champion", str(number))
            assert plan(published(number)) == ("fresh", "", "")
        client.set_registered_model_alias("quick", "champion", "1")
        assert plan(published(2)) == (
            "fresh",
            "",
            "what is published in me/model is version 2 of quick, and the champion is version 1: a refresh with the "
            "recipe that version 1 was made by publishes that",
        )
        chain = chain_of(store, recipes[0])
        chain._lost[PUBLISHED] = partial(lost_publication, settings, store)
        again = "version 1 of quick is the champion again, and me/model has version 2"
        assert plan(chain) == ("stale", again, "")
        assert plan(published(1)) == ("fresh", "", ""), "published anew"


def test_refresh_starts_nothing_that_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _use(tmp_path, monkeypatch)
    assert main(["plan"]) == 1
    assert f"{PUBLISHED} cannot be built: there is no token to publish to me/model with" in capsys.readouterr().out
    assert main(["refresh"]) == 1
    assert f"error: {PUBLISHED} cannot be built: there is no token" in capsys.readouterr().err
    assert not (tmp_path / "home" / "store").exists()


@pytest.mark.parametrize(
    ("content", "said"), [(None, "cannot be read (No such file or directory)"), ("no key", "cannot be used")]
)
def test_a_key_that_cannot_sign_refuses_what_would_be_registered(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    content: str | None,
    said: str,
) -> None:
    """And so the run that would end in it, as below."""
    _use(tmp_path, monkeypatch, publish=False)
    key = tmp_path / "key.pem"
    monkeypatch.setenv("ERNIE_PIPELINE_SIGNING_KEY", str(key))
    if content:
        pytest.importorskip("model_signing", reason="needs ernie_pipeline[signing]")
        key.write_text(content)
    sentence = f"registered_model cannot be built: ERNIE_PIPELINE_SIGNING_KEY = {str(key)!r} {said}"
    assert main(["plan"]) == 1
    assert sentence in capsys.readouterr().out
    assert main(["refresh"]) == 1
    assert f"error: {sentence}" in capsys.readouterr().err


def test_a_run_is_ended_by_its_first_step_unless_it_publishes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _use(tmp_path, monkeypatch)
    assert PUBLISHED in declared_versions(Settings.from_environment())
    assert PUBLISHED in open_chain(Settings.from_environment()).refused
    ended = _materialize(f"raw_nemotron,{PUBLISHED}", tmp_path)
    assert ended.returncode == 1
    assert f"{PUBLISHED} cannot be built: there is no token to publish to me/model with" in ended.stdout
    assert not (tmp_path / "home" / "store" / "raw_nemotron").exists()
    assert _materialize("raw_nemotron", tmp_path).returncode == 0


def _use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, publish: bool = True) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text("[source]\nrows = 20\n" + ('[publish]\nrepo = "me/model"\n' if publish else ""))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    for name, value in {
        "ERNIE_PIPELINE_HOME": tmp_path / "home",
        "ERNIE_PIPELINE_RECIPE": recipe,
        "HF_TOKEN_PATH": "/nowhere",
    }.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", "/nowhere")


def _materialize(select: str, within: Path) -> "subprocess.CompletedProcess[str]":
    command = ["-m", "dagster", "asset", "materialize", "--select", select, "-m", "ernie_pipeline.definitions"]
    command += ["--config-json", '{"execution": {"config": {"in_process": {}}}}']
    return subprocess.run(
        [sys.executable, *command],
        cwd=within,
        env={k: v for k, v in os.environ.items() if k != "DAGSTER_HOME"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
