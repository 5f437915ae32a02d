"""Which backend a recipe's `training.backend` stands for: by the machine, the model, and the recipe's own values."""

from pathlib import Path
from typing import Any, get_args

import pytest

from ernie_pipeline import models
from ernie_pipeline.models import GROUPED_MODEL_TYPE, backend_named, resolve_backend
from ernie_pipeline.models.backend import Backend, BackendName
from ernie_pipeline.models.grouped.backend import GroupedBackend
from ernie_pipeline.models.peft.backend import PeftBackend
from ernie_pipeline.recipe.sections import Quantization, Training
from ernie_pipeline.utils.errors import PipelineError

SET = 'set it to "auto" or "peft"'
RECIPE = Quantization().model_dump(mode="json")
NAMES: tuple[BackendName, ...] = get_args(BackendName)


class Machine:
    """A machine with or without a CUDA device, a base model of some type, and how often its type was asked for."""

    def __init__(self, cuda: bool = True, model_type: str = GROUPED_MODEL_TYPE):
        self.cuda, self.model_type, self.asked = cuda, model_type, 0

    def resolve(self, wanted: str, dropout: float = 0.0, **changes: Any) -> str:
        """What `wanted` stands for here; `changes`: of the recipe's quantization."""
        self.asked = 0
        return resolve_backend(wanted, RECIPE | changes, dropout, cuda=self.cuda, model_type=self._ask)

    def refused(self, wanted: str, dropout: float = 0.0, **changes: Any) -> str:
        """The sentence that tells why not."""
        with pytest.raises(PipelineError) as told:
            self.resolve(wanted, dropout, **changes)
        assert "\n" not in str(told.value)
        return str(told.value)

    def _ask(self) -> str:
        self.asked += 1
        return self.model_type


@pytest.fixture(autouse=True)
def package(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bool:
    """The package unsloth is here, and nobody imports it to see that; or, with the parameter False, it is not here."""
    if not getattr(request, "param", True):
        monkeypatch.setattr(models, "find_spec", lambda name: None)
        return False
    (tmp_path / "unsloth").mkdir()
    (tmp_path / "unsloth" / "__init__.py").write_text("raise AssertionError('imported to see whether it is there')")
    monkeypatch.syspath_prepend(tmp_path)
    return True


without_the_package = pytest.mark.parametrize("package", [False], indirect=True)
with_or_without_it = pytest.mark.parametrize("package", [False, True], indirect=True)


def test_each_backend_is_a_folder_and_the_recipe_names_it_or_auto() -> None:
    folders = {file.parent.name for file in Path(models.__file__).parent.glob("*/backend.py")}
    assert folders <= {*NAMES}
    assert {*get_args(Training.model_fields["backend"].annotation)} == {"auto", *NAMES}


@pytest.mark.parametrize(("name", "made"), [("peft", PeftBackend), ("grouped", GroupedBackend)])
def test_a_backend_is_found_by_its_name(name: str, made: type[Backend]) -> None:
    found = backend_named(name)
    assert type(found) is made
    assert found.name == name


@pytest.mark.skipif(
    "unsloth" not in {f.parent.name for f in Path(models.__file__).parent.glob("*/backend.py")},
    reason="models/unsloth/ is not there",
)
def test_unsloth_is_found_by_its_name() -> None:
    assert backend_named("unsloth").name == "unsloth"


@with_or_without_it
def test_auto_is_grouped_where_device_and_model_allow(package: bool) -> None:
    machine = Machine()
    assert machine.resolve("auto") == machine.resolve("grouped") == "grouped"
    assert machine.asked == 1


@with_or_without_it
@pytest.mark.parametrize("changes", [{"type": "fp4"}, {"double": False}])
def test_grouped_quantizes_in_every_way_of_the_recipe(package: bool, changes: dict[str, Any]) -> None:
    assert Machine().resolve("auto", **changes) == Machine().resolve("grouped", **changes) == "grouped"


def test_auto_is_unsloth_for_another_model_where_the_package_is() -> None:
    assert Machine(model_type="llama").resolve("auto") == "unsloth"
    assert Machine().resolve("auto", dropout=0.1) == "unsloth"


@without_the_package
def test_auto_is_peft_for_another_model_without_the_package() -> None:
    assert Machine(model_type="llama").resolve("auto") == "peft"
    assert Machine().resolve("auto", dropout=0.1) == "peft"


@pytest.mark.parametrize("changes", [{"type": "fp4"}, {"double": False}, {"compute_dtype": "float32"}])
def test_auto_is_peft_where_neither_of_the_others_makes_the_recipe_s_quantization(changes: dict[str, Any]) -> None:
    assert Machine(model_type="llama").resolve("auto", **changes) == "peft"


@with_or_without_it
def test_auto_without_a_cuda_device_is_peft(package: bool) -> None:
    assert Machine(cuda=False).resolve("auto") == "peft"


@with_or_without_it
@pytest.mark.parametrize("cuda", [False, True])
def test_peft_is_peft_everywhere(package: bool, cuda: bool) -> None:
    for changes in ({}, {"type": "fp4"}, {"compute_dtype": "float32"}):
        assert Machine(cuda, "llama").resolve("peft", dropout=0.5, **changes) == "peft"


def test_the_type_of_the_model_is_asked_for_only_where_it_decides() -> None:
    """To ask for it may fetch a file from the hub, and fail."""
    machine = Machine()
    for wanted in ("peft", "unsloth"):
        machine.resolve(wanted)
        assert machine.asked == 0, wanted
    for settings in ({"dropout": 0.1}, {"compute_dtype": "float32"}):
        machine.resolve("auto", **settings)
        assert machine.asked == 0, settings
    nowhere = Machine(cuda=False)
    nowhere.resolve("auto")
    nowhere.refused("grouped")
    assert nowhere.asked == 0
    for wanted in ("auto", "grouped"):
        machine.resolve(wanted)
        assert machine.asked == 1, wanted


def test_a_model_whose_type_cannot_be_read_is_told_and_not_guessed() -> None:
    def fails() -> str:
        raise PipelineError("its config.json cannot be read")

    for wanted in ("auto", "grouped"):
        with pytest.raises(PipelineError, match="cannot be read"):
            resolve_backend(wanted, RECIPE, 0.0, cuda=True, model_type=fails)
    assert resolve_backend("peft", RECIPE, 0.0, cuda=True, model_type=fails) == "peft"


@pytest.mark.parametrize("name", ["grouped", "unsloth"])
def test_no_cuda_device_is_said_in_one_sentence(name: str) -> None:
    told = Machine(cuda=False).refused(name)
    assert told == f'training.backend = "{name}" needs a CUDA device, and this machine shows none; {SET}'


@pytest.mark.parametrize(
    ("machine", "settings", "clause"),
    [
        (
            Machine(),
            {"compute_dtype": "float32"},
            "computes in bfloat16, and quantization.compute_dtype is 'float32'",
        ),
        (Machine(), {"dropout": 0.1}, "has no dropout, and lora.dropout is 0.1"),
        (Machine(model_type="llama"), {}, "is for models of the type ernie4_5_moe, not 'llama'"),
        # of several, the first that can be told without asking for more
        (Machine(cuda=False, model_type="llama"), {"dropout": 0.1}, "needs a CUDA device, and this machine shows none"),
        (Machine(model_type="llama"), {"dropout": 0.1}, "has no dropout, and lora.dropout is 0.1"),
    ],
)
def test_what_grouped_lacks_is_said_in_one_sentence(machine: Machine, settings: dict[str, Any], clause: str) -> None:
    assert machine.refused("grouped", **settings) == f'training.backend = "grouped" {clause}; {SET}'


@pytest.mark.parametrize(("name", "value"), [("type", "fp4"), ("double", False), ("compute_dtype", "float32")])
def test_another_quantization_than_unsloth_s_is_said_in_one_sentence(name: str, value: Any) -> None:
    machine = Machine()
    assert machine.resolve("unsloth") == "unsloth"
    assert machine.refused("unsloth", **{name: value}) == (
        f'training.backend = "unsloth" makes quantization.{name} = {RECIPE[name]!r}, '
        f"and the recipe asks for {value!r}; {SET}"
    )


@without_the_package
def test_unsloth_without_its_package_is_told_with_what_installs_it() -> None:
    assert Machine().refused("unsloth") == (
        'training.backend = "unsloth" needs the package unsloth, which is not installed here: '
        f'pip install "ernie_pipeline[gpu]"; {SET}'
    )
