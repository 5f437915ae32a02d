"""How a version of a registered model is named."""

import pytest

from ernie_pipeline.registry.model_uri import Named, parse_model_uri
from ernie_pipeline.utils.errors import PipelineError


def test_an_alias_a_number_and_the_number_of_the_own_model_are_understood() -> None:
    assert parse_model_uri("models:/quick@champion") == Named("quick", alias="champion")
    assert parse_model_uri("models:/quick model/12") == Named("quick model", version="12")
    assert parse_model_uri("3", own_name="quick") == Named("quick", version="3")


@pytest.mark.parametrize(
    "text",
    [
        "models:/quick",
        "models:/quick@",
        "models:/@champion",
        "models:/quick/latest",
        "models:/a/b/1",
        "models:/a@b/1",
        "",
    ],
)
@pytest.mark.parametrize("own_name", ["", "quick"])
def test_all_else_is_refused_in_one_sentence(text: str, own_name: str) -> None:
    with pytest.raises(PipelineError) as refused:
        parse_model_uri(text, own_name)
    assert str(refused.value).startswith(f"{text!r} names no version of a registered model; write models:/NAME@ALIAS ")
    assert ("or VERSION" in str(refused.value)) == bool(own_name)


def test_a_number_alone_is_a_version_of_no_model_where_none_is_meant() -> None:
    with pytest.raises(PipelineError, match="'3' names no version"):
        parse_model_uri("3")
