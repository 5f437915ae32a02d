"""README.md and docs/ say what is so: links that lead somewhere, files that exist, every key, every command."""

import json
import re
from pathlib import Path

import pytest

from ernie_pipeline.cli.app import main
from ernie_pipeline.recipe.reference import recipe_reference

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
LINK = re.compile(r"\[[^\]]*\]\((?!https?:)([^)#\s]+)(?:#[^)]*)?\)")
FILE = re.compile(r"`((?:ernie_pipeline|ernie_pipeline_tests|benchmarks|deploy|docs|examples|\.ci)/[\w./-]+)`")


@pytest.mark.parametrize("page", [*PAGES, *NOTEBOOKS], ids=lambda page: page.name)
def test_what_a_page_names_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    gone = [link for link in LINK.findall(text) if not (page.parent / link).exists()]
    gone += [file for file in FILE.findall(text) if not (ROOT / file).exists()]
    assert not gone


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.name)
def test_a_notebook_is_kept_without_what_it_printed(notebook: Path) -> None:
    cells = [cell for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    assert cells
    assert not [cell["source"] for cell in cells if cell["outputs"] or cell["execution_count"] is not None]


def test_the_readme_is_short() -> None:
    words = len((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert words <= 1200, "further things have a page in docs/"


def test_the_reference_has_today_s_keys() -> None:
    shown = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    assert shown == recipe_reference(), "python -m ernie_pipeline.recipe.reference > docs/reference.md"


def test_each_command_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    commands = re.findall(r"^  (\w+)", capsys.readouterr().out.partition("Commands:")[2], flags=re.MULTILINE)
    assert {"plan", "refresh", "verify"} <= {*commands}
    told = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    assert [name for name in commands if not re.search(rf"[` ]{name}\b", told)] == []
