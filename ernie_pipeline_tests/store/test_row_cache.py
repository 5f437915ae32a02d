"""Rows outlive the process that made them, whatever ended it; a line that is not whole is as good as not there."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ernie_pipeline.store.housekeeping import kept_rows
from ernie_pipeline.store.row_cache import ABOUT, FOLDER, KeptRows, open_rows, read_rows


@pytest.fixture
def kept(tmp_path: Path) -> KeptRows:
    return KeptRows(folder=tmp_path / FOLDER / "0123456789abcdef", about={"inputs": {"base_model": "sha256:12"}})


def fill(kept: KeptRows, rows: dict[str, list[int]]) -> None:
    with open_rows(kept) as cache:
        for key, tokens in rows.items():
            cache.keep(key, tokens)


def test_what_was_kept_is_there_for_the_next_one_and_for_this_one(kept: KeptRows) -> None:
    with open_rows(kept) as cache:
        assert cache.get("a") is None
        cache.keep("a", [1, 2, 3])
        cache.keep("empty", [])
        assert cache.get("a") == [1, 2, 3]
    with open_rows(kept) as cache:
        assert cache.get("a") == [1, 2, 3]
        assert cache.get("empty") == []
        assert cache.get("b") is None
    assert len(list(kept.folder.glob("*.jsonl"))) == 1, "one that kept nothing leaves no file"


def test_two_at_once_keep_beside_each_other(kept: KeptRows) -> None:
    with open_rows(kept) as one, open_rows(kept) as other:
        one.keep("a", [1])
        other.keep("b", [2])
        other.keep("a", [1])
    assert read_rows(kept.folder) == {"a": [1], "b": [2]}


def test_a_killed_process_loses_nothing_that_it_kept(kept: KeptRows) -> None:
    program = (
        "import sys, time; from pathlib import Path\n"
        "from ernie_pipeline.store.row_cache import KeptRows, open_rows\n"
        "with open_rows(KeptRows(folder=Path(sys.argv[1]))) as cache:\n"
        "    for number in range(1000):\n"
        "        cache.keep(str(number), [number])\n"
        "    print('ready', flush=True); time.sleep(60)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", program, str(kept.folder)], stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"ready\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    assert read_rows(kept.folder) == {str(number): [number] for number in range(1000)}


@pytest.mark.parametrize("cut", [1, 2, 7, 15, 20])
def test_a_line_that_was_cut_off_is_not_there_and_the_others_are(kept: KeptRows, cut: int) -> None:
    fill(kept, {"a": [1, 2, 3], "b": [4, 5, 6]})
    (file,) = kept.folder.glob("*.jsonl")
    whole = file.read_bytes()
    file.write_bytes(whole[:-cut])
    assert read_rows(kept.folder) == ({"a": [1, 2, 3], "b": [4, 5, 6]} if cut == 1 else {"a": [1, 2, 3]})


def test_an_altered_line_is_not_there(kept: KeptRows) -> None:
    fill(kept, {"a": [1, 2, 3], "b": [4, 5, 6]})
    (file,) = kept.folder.glob("*.jsonl")
    file.write_bytes(file.read_bytes().replace(b"[1,2,3]", b"[1,2,4]") + b"\x00\xff\n\n")
    assert read_rows(kept.folder) == {"b": [4, 5, 6]}


def test_without_a_place_rows_are_kept_for_this_process_alone() -> None:
    with open_rows(None) as cache:
        cache.keep("a", [1])
        assert cache.get("a") == [1]
    with open_rows(None) as cache:
        assert cache.get("a") is None


def test_a_set_out_of_use_that_the_recipe_does_not_ask_for_may_go(kept: KeptRows, tmp_path: Path) -> None:
    fill(kept, {"a": [1]})
    key = kept.folder.name
    (young,) = kept_rows.take_stock(tmp_path, set())
    assert (young.key, young.about) == (key, {"inputs": {"base_model": "sha256:12"}})
    assert young.needed_for == ("used in the last 14 days",)
    long_ago = time.time() - 15 * 24 * 3600
    for place in (*kept.folder.iterdir(), kept.folder):
        os.utime(place, (long_ago, long_ago))
    perhaps = ("perhaps asked for by the recipe",)
    for asked, why in (({key}, ("asked for by the recipe",)), (None, perhaps), (set(), ())):
        (found,) = kept_rows.take_stock(tmp_path, asked)
        assert found.needed_for == why
        assert len(kept_rows.notes([found])) == (why == perhaps)
    assert kept_rows.prune(tmp_path, [found]) == (found,)
    assert kept.folder.is_dir(), "nothing is removed unless that is said"
    fill(kept, {})  # used again since stock was taken
    assert kept_rows.prune(tmp_path, [found], delete=True) == ()
    for place in (*kept.folder.iterdir(), kept.folder):
        os.utime(place, (long_ago, long_ago))
    assert kept_rows.prune(tmp_path, [found], delete=True) == (found,)
    assert not kept.folder.exists()


def test_what_cannot_be_read_about_a_set_is_nothing_and_stops_nothing(kept: KeptRows, tmp_path: Path) -> None:
    fill(kept, {"a": [1]})
    for text in ("", "[1]", "{", "\x00"):
        (kept.folder / ABOUT).write_text(text)
        (found,) = kept_rows.take_stock(tmp_path, set())
        assert found.about == {}
