import pytest

from ernie_pipeline.engines import choose_engine, engine_module
from ernie_pipeline.errors import PipelineError


def test_auto_is_an_engine_that_there_is() -> None:
    assert choose_engine("auto") == "peft"
    assert engine_module("peft").__name__.endswith("peft_engine")


def test_an_engine_that_there_is_not_is_told_with_those_that_there_are() -> None:
    with pytest.raises(PipelineError, match=r'engine = "unsloth" is not in this version; set it to "auto" or "peft"'):
        engine_module("unsloth")
