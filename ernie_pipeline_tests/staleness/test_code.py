import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import ernie_pipeline
from ernie_pipeline.recipe.settings import Settings
from ernie_pipeline.staleness import code
from ernie_pipeline.staleness.stages import STAGES, declared_versions
from ernie_pipeline.utils.errors import PipelineError

TREE = {
    "__init__.py": "",
    "stage.py": "from ernie_pipeline.near import near\n\n\ndef work():\n    return near() + 1\n",
    "near/__init__.py": "from ernie_pipeline import far\n\n\ndef near():\n    return far.far()\n",
    "far.py": "FACTOR = 2\n\n\ndef far():\n    return FACTOR * 3\n",
    "elsewhere.py": "x = 1\n",
}

Version = Callable[..., str]


@pytest.fixture
def version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Version:
    """The code version of `stage.py` in a package of its own, after writing `changes` (path: text) into it."""
    monkeypatch.setattr(code, "ROOT", tmp_path)

    def write_and_hash(changes: dict[str, str] = TREE, libraries: tuple[str, ...] = ()) -> str:
        for name, text in changes.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(text)
        return code.read_code(("ernie_pipeline.stage",), libraries).version

    return write_and_hash


def test_comments_docstrings_and_formatting_change_nothing(version: Version) -> None:
    before = version()
    reworded = '''"""A module docstring."""
from ernie_pipeline.near import (
    near,  # what is near
)

def work():
    """A docstring."""
    # a comment
    return (near()
            + 1)
'''
    commented = 'FACTOR = 2\n"""What is multiplied by."""\n\ndef far():\n    return FACTOR*3'
    assert version({"stage.py": reworded, "far.py": commented}) == before


def test_a_changed_line_two_imports_away_counts(version: Version) -> None:
    before = version()
    assert version({"far.py": TREE["far.py"].replace("* 3", "* 4")}) != before
    assert version(TREE) == before  # and only the line: undone, it is the same version again


@pytest.mark.parametrize(
    "statement",
    [
        "from ernie_pipeline.late import value",
        "import ernie_pipeline.late",
        "from ernie_pipeline import late",
        "from .late import value",
        "from . import late",
    ],
)
def test_an_import_inside_a_function_counts_however_it_is_written(version: Version, statement: str) -> None:
    stage = f"def work():\n    {statement}\n    return 1\n"
    before = version({**TREE, "stage.py": stage, "late.py": "value = 1\n"})
    assert version({"late.py": "value = 2\n"}) != before


def test_a_relative_import_in_a_subpackage_counts(version: Version) -> None:
    near = {"near/__init__.py": "from .inner import near\n", "near/inner.py": "from ..far import far as near\n"}
    before = version({**TREE, **near})
    assert version({"far.py": "def far():\n    return 0\n"}) != before


def test_each_module_and_library_is_named(version: Version) -> None:
    version()
    read = code.read_code(("ernie_pipeline.stage",), ("pytest",))
    assert list(read.modules) == ["ernie_pipeline.far", "ernie_pipeline.near", "ernie_pipeline.stage"]
    assert read.libraries == {"pytest": pytest.__version__}


def test_an_unreached_module_does_not_count(version: Version) -> None:
    before = version()
    assert version({"elsewhere.py": "x = 2\n"}) == before


def test_modules_that_import_each_other_have_a_version(version: Version) -> None:
    assert version({**TREE, "far.py": "import ernie_pipeline.stage\n\n\ndef far():\n    return 1\n"})


def test_a_stage_module_that_is_not_there_is_named(version: Version) -> None:
    (code.ROOT / "other.py").write_text("")
    with pytest.raises(ModuleNotFoundError, match=r"ernie_pipeline\.stage"):
        version({"near.py": ""})


def test_the_version_of_a_library_counts(version: Version, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    versions = []
    for number in ("1.0", "1.1"):
        info = tmp_path / f"site{number}" / f"ernie_test_library-{number}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: ernie-test-library\nVersion: {number}\n")
        with monkeypatch.context() as path:
            path.syspath_prepend(info.parent)
            versions.append(version(TREE, ("ernie-test-library",)))
    assert len({version(), *versions}) == 3


def test_the_real_stages_reach_their_engine_and_nothing_of_dagsters_side() -> None:
    reached = {name: code.reached(stage.code) for name, stage in STAGES.items()}
    for stage in ("qlora_adapter", "base_evaluation", "adapter_evaluation"):  # imported inside a function
        assert {f"ernie_pipeline.models.{m}" for m in ("peft.backend", "peft.experts", "quantize")} <= reached[stage]
    where_and_how = ("orchestration", "definitions", "launch", "store", "staleness", "recipe")
    for name, modules in reached.items():
        wrong = [m for m in modules for w in where_and_how if f"{m}.".startswith(f"ernie_pipeline.{w}.")]
        assert not wrong, f"{name} would be rebuilt for a change of {wrong}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1\ndef far(:\n    pass\n", ", line 2 is no Python that can be read: invalid syntax; mend it"),
        ("x = 1\0", " is no Python that can be read: source code string cannot contain null bytes; mend it"),
    ],
)
def test_a_module_that_is_no_python_is_named_with_its_line(
    version: Version, tmp_path: Path, text: str, said: str
) -> None:
    version()
    with pytest.raises(PipelineError) as caught:
        version({"far.py": text})
    assert str(caught.value) == f"{tmp_path}/far.py{said}"


def test_the_code_location_opens_without_a_module_that_is_no_python(version: Version, tmp_path: Path) -> None:
    """A stage that does not reach the module has its version; one that does, says so when it is asked for."""
    shutil.copytree(Path(ernie_pipeline.__file__).parent, tmp_path, dirs_exist_ok=True)
    (tmp_path / "training" / "trainer.py").write_text("def broken(:\n")
    versions = declared_versions(Settings(tmp_path / "home", "demo", None, "sqlite:///x.db"))
    assert {name for name, found in versions.items() if found == "unreadable code"} == {"qlora_adapter"}
