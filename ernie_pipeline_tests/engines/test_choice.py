"""Which engine a recipe's `training.engine` stands for, by what this version and this machine have."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ernie_pipeline import engines
from ernie_pipeline.engines import ENGINES, choose_engine, engine_module, engine_name
from ernie_pipeline.errors import PipelineError

SET = 'set it to "auto" or "peft"'

Machine = Callable[[bool, bool], None]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A version that has the engine unsloth, on a machine with or without a CUDA device and the package."""

    def make(cuda: bool, package: bool) -> None:
        monkeypatch.setattr(engines, "ENGINES", ("peft", "unsloth"))
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
        if package:
            (tmp_path / "unsloth").mkdir()
            (tmp_path / "unsloth" / "__init__.py").write_text(
                "raise AssertionError('imported to see whether it is there')"
            )
            monkeypatch.syspath_prepend(tmp_path)

    return make


def test_each_engine_of_this_version_is_a_module_that_is_found_by_its_name() -> None:
    files = Path(engines.__file__).parent.glob("*_engine.py")
    assert sorted(file.stem for file in files) == [f"{name}_engine" for name in sorted(ENGINES)]
    for name in ENGINES:
        if name != "unsloth":
            assert engine_name(engine_module(name)) == name


@pytest.mark.parametrize(("cuda", "package"), [(False, False), (False, True), (True, False), (True, True)])
def test_auto_is_unsloth_where_a_gpu_and_the_package_are(machine: Machine, cuda: bool, package: bool) -> None:
    machine(cuda, package)
    assert choose_engine("auto") == ("unsloth" if cuda and package else "peft")
    assert choose_engine("peft") == "peft"


@pytest.mark.skipif("unsloth" in ENGINES, reason="this version has it")
def test_auto_is_peft_while_this_version_has_no_other(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(True, True)
    monkeypatch.setattr(engines, "ENGINES", ENGINES)
    assert choose_engine("auto") == "peft"
    with pytest.raises(PipelineError, match=f'^training.engine = "unsloth" is not in this version; {SET}$'):
        engine_module("unsloth")


def test_unsloth_without_a_gpu_is_told_in_one_sentence(machine: Machine) -> None:
    machine(False, True)
    with pytest.raises(PipelineError, match=rf"needs a CUDA device, and this machine shows none; {SET}$"):
        choose_engine("unsloth")


def test_unsloth_without_its_package_is_told_with_what_installs_it(machine: Machine) -> None:
    machine(True, False)
    with pytest.raises(PipelineError, match=rf'is not installed here: pip install "ernie_pipeline\[gpu\]"; {SET}$'):
        choose_engine("unsloth")
