"""How a version of a registered model is named."""

import pytest

from ernie_pipeline.registry.model_uri import Named, parse_model_uri
from ernie_pipeline.utils.errors import PipelineError


def test_an_alias_and_a_number_are_understood_alone_those_of_the_own_model() -> None:
    assert parse_model_uri("models:/quick@champion", "own") == Named("quick", alias="champion")
    assert parse_model_uri("models:/quick model/12", "own") == Named("quick model", version="12")
    assert parse_model_uri("3", "own") == Named("own", version="3")
    assert parse_model_uri("best-so_far", "own") == Named("own", alias="best-so_far")


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
def test_all_else_is_refused_in_one_sentence(text: str) -> None:
    with pytest.raises(PipelineError) as refused:
        parse_model_uri(text, "own")
    assert str(refused.value).startswith(f"{text!r} names no version of a registered model; name an alias ")
