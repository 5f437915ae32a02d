"""A home and its second user: a group may share it, and anybody else is told at once. Other users, so only as root."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ALICE, BOB, GROUP = 12345, 12346, 12347


def _all_may_read(place: Path) -> bool:
    """Whether every user may look into the folder: none of those above it is closed to others."""
    return all(folder.stat().st_mode & 0o001 for folder in (place, *place.parents))


pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="to become other users takes root"),
    pytest.mark.skipif(
        not (_all_may_read(Path(sys.prefix)) and _all_may_read(Path(__file__).parents[2])),
        reason="other users may not read this Python's packages, or this checkout",
    ),
]

AS_ANOTHER = """
import os, sys, tempfile
from pathlib import Path
from ernie_pipeline.cli.app import main
from ernie_pipeline.recipe.settings import Settings
from ernie_pipeline.staleness.stages import open_chain
from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline_tests.staleness.chains import constant

user, home, umask, what = int(sys.argv[1]), sys.argv[2], int(sys.argv[3], 8), sys.argv[4]
os.environ.update(ERNIE_PIPELINE_RECIPE="demo", HF_HUB_OFFLINE="1")

def at(home):
    os.environ["ERNIE_PIPELINE_HOME"] = home

def do(what):
    if what == "build":
        chain = open_chain(Settings.from_environment(), run=f"run of {os.getuid()}")
        artifact = chain.reuse_or_build("raw_nemotron", constant)
        again = chain.reuse_or_build("math_split", constant)
        return f"{'reused' if artifact.reused else 'built'} {'reused' if again.reused else 'built'}"
    return f"status {main(what.split())}"

with tempfile.TemporaryDirectory() as other:  # what is imported late is imported now: it may not be the user's to read
    at(other)
    sys.stdout = open(os.devnull, "w")
    do(what), do("build"), do("plan"), do("store prune --delete")
    sys.stdout = sys.__stdout__
os.chdir("/")
os.setgroups([int(g) for g in sys.argv[5:]])
os.setgid(user)
os.setuid(user)
os.umask(umask)
os.environ.update(HOME=f"/nowhere", XDG_CACHE_HOME="/nowhere")
at(home)
try:
    print(do(what))
except PipelineError as error:
    print("error:", error)
"""


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder below which every user may look."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def as_user(user: int, home: Path, what: str, *groups: int, umask: str = "022") -> str:
    """What the user saw; a traceback fails the test."""
    command = [sys.executable, "-c", AS_ANOTHER, str(user), str(home), umask, what, *map(str, groups)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode == 0, done.stderr
    return (done.stdout + done.stderr).strip()


def home_of(user: int, place: Path, mode: int = 0o755, group: int | None = None) -> Path:
    home = place / "home"
    home.mkdir()
    os.chown(home, user, user if group is None else group)
    home.chmod(mode)
    return home


def test_another_user_may_look_and_is_told_before_any_work(place: Path) -> None:
    home = home_of(ALICE, place)
    assert as_user(ALICE, home, "build") == "built built"
    for looking in ("plan", "store list", "store verify", "store prune"):
        assert "error" not in as_user(BOB, home, looking), looking
    for writing in ("build", "store prune --delete"):
        told = as_user(BOB, home, writing)
        assert (
            f"ERNIE_PIPELINE_HOME = '{home}' is another user's: you may not write {home}, which is user 12345's;"
            in told
        )
        assert "set it to a folder of your own, or ask for the home to be shared with a group" in told


def test_a_home_that_may_not_be_looked_at_is_told(place: Path) -> None:
    home = home_of(ALICE, place, mode=0o700)
    assert as_user(ALICE, home, "build") == "built built"
    for what in ("plan", "store list", "build"):
        told = as_user(BOB, home, what)
        assert "is another user's: you may not" in told, told


def test_a_group_shares_a_home_whatever_its_users_umasks_are(place: Path) -> None:
    home = home_of(ALICE, place, mode=0o2770, group=GROUP)
    assert as_user(ALICE, home, "build", GROUP, umask="077") == "built built"
    assert as_user(BOB, home, "build", GROUP, umask="022") == "reused reused"
    shutil.rmtree(next((home / "store" / "math_split").iterdir()))
    assert as_user(BOB, home, "build", GROUP, umask="022") == "reused built"
    shutil.rmtree(next((home / "store" / "raw_nemotron").iterdir()))
    assert as_user(ALICE, home, "build", GROUP, umask="077") == "built reused"
    assert "status 0" in as_user(ALICE, home, "store prune --delete", GROUP)
    assert "you may not" in as_user(BOB, home, "plan")  # who is not in the group


def test_one_place_that_is_another_s_is_named(place: Path) -> None:
    home = home_of(ALICE, place, mode=0o2770, group=GROUP)
    assert as_user(ALICE, home, "build", GROUP) == "built built"
    for name in ("store/.builds/raw_nemotron.jsonl", "store/.locks", "store/math_split", "mlflow.db"):
        there = home / name
        if name == "mlflow.db":
            there.touch()
        mode = there.stat().st_mode
        os.chown(there, 0, 0)
        there.chmod(0o755 if there.is_dir() else 0o644)
        told = as_user(BOB, home, "build", GROUP)
        assert f"is another user's: you may not write {there}, which is root's; set it" in told
        os.chown(there, ALICE, GROUP)
        there.chmod(mode)


def test_a_home_that_cannot_be_made_there_is_told(place: Path) -> None:
    told = as_user(BOB, place / "new", "build")
    assert told == (
        f"error: ERNIE_PIPELINE_HOME = '{place}/new' cannot be used: you may not write {place}, which is root's; "
        "set it to a folder that you may"
    )
