"""A filter that takes more than a third of the rows is told, with what of the recipe decides it."""

from ernie_pipeline.data.make_split import DROPPING
from ernie_pipeline.data.tables.heavy_filters import KEYS, SWITCHED, heavy_filter_words, heavy_filters
from ernie_pipeline.recipe.sections import Filters, Recipe


def test_a_third_is_no_more_than_a_third() -> None:
    assert heavy_filters({"proof": 33, "yes_no": 34, "max_tokens": 0}, 99) == ["yes_no"]
    assert heavy_filters({"proof": 0}, 0) == []


def test_it_is_told_how_many_and_which_key() -> None:
    (words,) = heavy_filter_words({"max_tokens": 6128}, 7473)
    assert words == (
        "the filter max_tokens took 6,128 of 7,473 rows (82 %): look at the ledger, "
        "and at split.max_tokens in the recipe"
    )


def test_the_keys_are_a_recipe_s_and_the_filters_are_those_that_drop() -> None:
    assert {*KEYS, *SWITCHED} <= {*DROPPING}
    assert {*SWITCHED} == {name for name, field in Filters.model_fields.items() if field.annotation is bool}
    for keys in KEYS.values():
        for key in keys.split(" and "):
            if "." in key:
                section, name = key.split(".")
                assert name in type(getattr(Recipe(), section)).model_fields
