"""Who may publish where, and what is said where somebody may not."""

import re
import time

import pytest

from ernie_pipeline.recipe.load import parse_recipe
from ernie_pipeline.recipe.sections import Publish, Recipe
from ernie_pipeline.registry.publish.access import check_access, check_tag, hub_answers
from ernie_pipeline.registry.publish.lost import what_is_lost
from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline_tests.registry.publish.hub import Hub

GONE = {"published": True, "repo": "me/model", "commit": "0" * 40, "private": True}


def refused(publish: Publish) -> str:
    with pytest.raises(PipelineError) as caught:
        check_access(publish)
    said = str(caught.value)
    assert "\n" not in said
    assert "hf_" not in re.sub("hf auth login", "", said), "the token is told to nobody"
    return said


def test_a_repository_of_ones_own_or_of_an_organization_may_be_there_or_not(hub: Hub) -> None:
    assert check_access(Publish(repo="me/model")).head is None
    made = hub.make("lab/model")
    target = check_access(Publish(repo="lab/model"))
    assert (target.head, target.files) == (made.head, {".gitattributes"})
    assert hub.writes() == []


def test_whoever_may_not_write_is_told_before(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "other/model belongs to other, and the token is me's" in refused(Publish(repo="other/model"))
    assert "me or lab or readers" in refused(Publish(repo="other/model"))
    assert "me may only read in the organization readers" in refused(Publish(repo="readers/model"))
    monkeypatch.setenv("HF_TOKEN", "hf_reads")
    assert "the token of me may only read, not publish to me/model" in refused(Publish(repo="me/model"))
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert "does not accept the token for me/model (401); set HF_TOKEN" in refused(Publish(repo="me/model"))
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", "/nowhere")
    assert "there is no token to publish to me/model with; set HF_TOKEN" in refused(Publish(repo="me/model"))


def test_a_repository_that_is_something_else_is_left_alone(hub: Hub) -> None:
    hub.make("me/public", private=False)
    assert "me/public is public on the hub, and publish.private = true" in refused(Publish(repo="me/public"))
    hub.make("me/mine").commit("mine", {"README.md": (b"mine", False), "weights.bin": (b"\0", True)})
    assert "holds files that were not published from here (such as weights.bin)" in refused(Publish(repo="me/mine"))
    hub.make("me/tagged").tags["v1"] = "0" * 40
    tagged = [Publish(repo="me/tagged", tag=tag) for tag in ("v1", "v2")]
    with pytest.raises(PipelineError, match="me/tagged has a tag v1 already, which is never moved"):
        check_tag(tagged[0], check_access(tagged[0]))
    check_tag(tagged[1], check_access(tagged[1]))


def test_a_hub_that_is_away_is_a_sentence(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.faults.append(("whoami", 503))
    assert "the hub did not do what was asked for me/model (503" in refused(Publish(repo="me/model"))
    with monkeypatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        assert "while HF_HUB_OFFLINE is set; unset it" in refused(Publish(repo="me/model"))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert "the hub did not answer for me/model (" in refused(Publish(repo="me/model"))


def test_a_hub_that_is_silent_is_not_waited_for(hub: Hub) -> None:
    from huggingface_hub import HfApi, get_session

    hub.before.append(("whoami", lambda: time.sleep(0.5)))
    with pytest.raises(PipelineError, match=r"did not answer for me/model .ReadTimeout"), hub_answers("me/model", 0.1):
        HfApi().whoami()
    assert get_session().timeout.read is None  # as its library has it


def test_a_publication_is_lost_only_where_the_hub_says_so(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    made = hub.make("me/model")
    there = {**GONE, "commit": made.head}
    made.commit("by hand", {})
    assert what_is_lost("", there) == ""  # others come after it
    assert what_is_lost("", GONE) == "commit 00000000 of me/model is not on the hub any more, or not for this token"
    hub.faults.append(("revision", 500))
    assert what_is_lost("", GONE) == ""
    del hub.repositories["me/model"]
    assert "is not on the hub any more" in what_is_lost("", there)
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", "/nowhere")
    assert what_is_lost("", there) == ""  # private: who has no token cannot know
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert what_is_lost("", {**there, "private": False}) == ""


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ({"private": False}, "publish.repo is missing: name the hub's repository"),
        ({"repo": "model"}, "publish.repo = 'model' is no name of a repository"),
        ({"repo": "me/a--b"}, "is no name of a repository"),
        ({"repo": "me/-a"}, "is no name of a repository"),
        ({"repo": "me/a.git"}, "is no name of a repository"),
        ({"repo": "me/café"}, "is no name of a repository"),
        ({"repo": f"me/{'a' * 94}"}, "is no name of a repository"),
        ({"repo": "https://huggingface.co/me/a"}, "is no name of a repository"),
        ({"repo": "me/a", "forms": []}, "publish.forms must name at least one form"),
        ({"repo": "me/a", "forms": ["peft", "peft"]}, "and each once"),
        ({"repo": "me/a", "license": "Apache 2"}, "publish.license = 'Apache 2' is no identifier"),
        ({"repo": "me/a", "tag": "v 1"}, "publish.tag = 'v 1' is no name of a tag"),
        ({"repo": "me/a", "form": "peft"}, "did you mean 'forms'"),
    ],
)
def test_a_recipe_that_cannot_be_published_is_refused_when_it_is_read(table: dict[str, object], sentence: str) -> None:
    with pytest.raises(PipelineError, match=re.escape(sentence)):
        parse_recipe({"publish": table}, where="test")


def test_a_name_that_the_recipe_takes_is_one_that_the_hub_takes() -> None:
    from huggingface_hub.utils import validate_repo_id

    for name in ("me/model", "me_2/ERNIE-4.5_math.v1", "a/b"):
        validate_repo_id(Publish(repo=name).repo)


def test_a_recipe_without_the_table_stays_without_it() -> None:
    """Also when a run has written it down with all its keys."""
    written = Recipe().model_dump_json()
    assert Recipe.model_validate_json(written).publish == Publish()
