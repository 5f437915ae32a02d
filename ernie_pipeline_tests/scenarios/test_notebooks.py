"""The notebooks of examples/, executed from a folder of their own, in the environment of somebody who has settings."""

import re
from pathlib import Path
from typing import Any

import pytest

from ernie_pipeline_tests.test_docs import NOTEBOOKS, ROOT

CELL_S = 300
SETTINGS = {
    "FORCE_COLOR": "1",
    "COLUMNS": "40",
    "ERNIE_PIPELINE_HOME": "own/home",  # relative, and not to be touched
    "ERNIE_PIPELINE_RECIPE": "reference",
    "DAGSTER_HOME": "own/dagster",
    "MLFLOW_TRACKING_URI": "http://127.0.0.1:9",
}
ANSI = "\x1b["


def executed(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What each cell of code printed or showed, by its last line; fails where one raises."""
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    for variable, value in {**SETTINGS, "TMPDIR": str(folder)}.items():
        monkeypatch.setenv(variable, value)
    notebook = nbformat.read(ROOT / "examples" / name, as_version=4)
    place = {"metadata": {"path": str(folder)}}
    nbclient.NotebookClient(notebook, timeout=CELL_S, kernel_name="python3", resources=place).execute()
    told = {c.source.splitlines()[-1]: "".join(map(shown, c.outputs)) for c in notebook.cells if c.cell_type == "code"}
    assert not [line for line, text in told.items() if line.startswith("!ernie") and ANSI in text]
    assert list(folder.glob("ernie-*")) == [], "the home is removed"
    assert not (folder / "own").exists()
    return {line: re.sub(r"\n+", "\n", text.replace("\r", "")) for line, text in told.items()}


def shown(output: Any) -> str:
    return str(output.get("text") or output.get("data", {}).get("text/plain", ""))


def test_there_are_two() -> None:
    assert [file.name for file in NOTEBOOKS] == ["quickstart.ipynb", "train.ipynb"]


def test_quickstart_builds_promotes_asks_and_verifies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = executed("quickstart.ipynb", tmp_path, monkeypatch)
    run = told["!ernie run"]
    assert re.search(r"^registered_model +built +in ", run, re.MULTILINE), run
    assert re.search(r"^gain +[+-]\d+\.\d points \(95 % interval ", run, re.MULTILINE)
    assert "Everything is fresh" in told["!ernie plan"]
    results = next(text for line, text in told.items() if "set_axis" in line)
    assert re.search(r"^base +\d\.\d+ ", results, re.MULTILINE)
    assert re.search(r"^adapter +\d\.\d+ ", results, re.MULTILINE)
    promoted = next(text for line, text in told.items() if line.startswith("!ernie promote"))
    assert "The champion of quickstart was none, and is version 1 now." in promoted
    for line in (
        '!ernie ask "Solve for x: 3*x + 5 = 20"',
        'print(champion.predict([question], params=sampling)["answer"][0])',
    ):
        assert re.search(r"\d", told[line]), "an answer with a number in it"
    assert "models:/quickstart/1 is what was measured" in told["!ernie verify"]


def test_train_goes_from_a_file_to_an_adapter_and_replans_one_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = executed("train.ipynb", tmp_path, monkeypatch)
    assert "read as GSM8K" in told["!ernie recipe init equations.csv --base demo"]
    assert (
        "1 cannot be read, the first in line 162: answer has nothing behind ####"
        in told["!ernie recipe init equations.csv --base demo"]
    )
    assert re.search(r"^registered_model +built +in ", told["!ernie run"], re.MULTILINE), told["!ernie run"]
    ledger = next(text for line, text in told.items() if line.startswith("ledger"))
    assert re.search(r"dropped +┆ broken_row +┆ 1 ", ledger)
    assert "loss_objective" in told["curve"]
    assert "adapter" in told["pl.DataFrame(rows)"]
    states = dict(re.findall(r"^(\w+) +(fresh|stale|waiting) ", told["!ernie plan"], re.MULTILINE))
    assert states == {
        "raw_nemotron": "fresh",
        "math_split": "fresh",
        "verified_solutions": "fresh",
        "qlora_adapter": "stale",
        "base_evaluation": "fresh",
        "adapter_evaluation": "waiting",
        "registered_model": "waiting",
    }
    assert "recipe training.learning_rate 0.001 -> 0.0005" in told["!ernie plan"]
