"""What a build that was cut short leaves: checkpoints and kept rows, for the next one on another machine."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ernie_pipeline.store.row_cache import KeptRows, open_rows, read_rows
from ernie_pipeline.store.shared.bucket import Bucket
from ernie_pipeline.store.shared.carried import Carrier, forget_before
from ernie_pipeline.training.checkpoints import Checkpoints
from ernie_pipeline_tests.store.shared.machines import KEY, build, machine, put_object, write_files
from ernie_pipeline_tests.store.shared.server import Server

SET = "5e7"


def carrier(root: Path, bucket: Bucket, token: int) -> Carrier:
    return Carrier(bucket, root, KEY, token, root / ".rows" / SET)


def checkpoints(root: Path) -> Checkpoints:
    return Checkpoints(root / ".unfinished" / KEY[0] / KEY[1] / "checkpoints")


def write_checkpoint(root: Path, step: int) -> None:
    def fill(folder: Path) -> None:
        (folder / "state").write_text(f"after step {step}")

    checkpoints(root).write(step, fill, {})
    checkpoints(root).keep(step)


def newest(root: Path) -> int:
    found = checkpoints(root).newest(print)
    return found.step if found else 0


def test_a_checkpoint_is_gone_on_from_elsewhere_and_a_lost_owners_is_not(bucket: Bucket, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    first = carrier(here, bucket, token=1)
    first.bring()
    for step in (10, 20):
        write_checkpoint(here, step)
        first.send()
    second = carrier(there, bucket, token=2)
    second.bring()
    assert newest(there) == 20
    write_checkpoint(there, 30)
    second.send()
    write_checkpoint(here, 40)  # it was paused, and does not know that it lost the lease
    first.send()

    third = carrier(here, bucket, token=3)
    third.bring()
    assert newest(here) == 30


def test_what_is_here_is_kept_where_nobody_else_went_on(bucket: Bucket, tmp_path: Path) -> None:
    first = carrier(tmp_path, bucket, token=1)
    first.bring()
    write_checkpoint(tmp_path, 10)
    first.send()
    write_checkpoint(tmp_path, 20)  # and was killed before that was sent
    carrier(tmp_path, bucket, token=2).bring()
    assert newest(tmp_path) == 20


def test_a_damaged_checkpoint_is_passed_over(bucket: Bucket, tmp_path: Path) -> None:
    first = carrier(tmp_path / "here", bucket, token=1)
    first.bring()
    write_checkpoint(tmp_path / "here", 10)
    first.send()
    for name in bucket.list(f"unfinished/{KEY[0]}/{KEY[1]}"):
        if not name.endswith("index"):
            bucket.put(f"unfinished/{KEY[0]}/{KEY[1]}/{name}", b"garbage")
    carrier(tmp_path / "there", bucket, token=2).bring()
    assert newest(tmp_path / "there") == 0


def test_only_what_is_new_is_sent_and_what_went_is_removed(server: Server, bucket: Bucket, tmp_path: Path) -> None:
    sends = carrier(tmp_path, bucket, token=1)
    sends.bring()
    write_checkpoint(tmp_path, 10)
    sends.send()
    server.fail()
    sends.send()
    assert [line for line in server.requests() if "PUT" in line] == []
    write_checkpoint(tmp_path, 20)
    sends.send()
    assert len(bucket.list(f"unfinished/{KEY[0]}/{KEY[1]}/1")) == 3  # the state, its manifest, the index


def test_rows_that_one_machine_made_are_not_made_again_by_another(bucket: Bucket, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    first = carrier(here, bucket, token=1)
    with open_rows(KeptRows(folder=here / ".rows" / SET)) as rows:
        rows.keep("a", [1])
        first.send()
        rows.keep("b", [2])
        with next((here / ".rows" / SET).glob("*.jsonl")).open("a") as lines:
            lines.write("cut o")
        first.send()
    second = carrier(there, bucket, token=1)
    second.bring()
    assert read_rows(there / ".rows" / SET) == {"a": [1], "b": [2]}
    with open_rows(KeptRows(folder=there / ".rows" / SET)) as rows:
        assert rows.get("b") == [2]
        rows.keep("c", [3])
        second.send()
    again = carrier(here, bucket, token=1)
    again.bring()
    again.send()
    assert read_rows(here / ".rows" / SET) == {"a": [1], "b": [2], "c": [3]}
    assert sorted(o.size for o in bucket.list(f"rows/{SET}").values()) == [19, 19, 19]


def test_a_finished_build_leaves_nothing_unfinished(bucket: Bucket, tmp_path: Path) -> None:
    here = machine(tmp_path / "here", bucket)

    def write(out: Path) -> None:
        write_checkpoint(here.root, 10)
        write_files(out)

    with here.sole_builder(*KEY, print):
        build_in = here.build
        with here.carried(*KEY, None):
            from ernie_pipeline_tests.store.shared.machines import made_from

            build_in(made_from(), write)
        assert bucket.list("unfinished")
        here.forget_unfinished(*KEY)
    assert not bucket.list("unfinished")
    assert build(here, write).reused


def test_what_others_have_put_beside_it_is_passed_over(server: Server, address: str, tmp_path: Path) -> None:
    bucket, unfinished = Bucket(address), f"{address}/unfinished/{KEY[0]}/{KEY[1]}"
    foreign = [f"{unfinished}/{name}" for name in ("", ".DS_Store", "index", "README/index", "9/", "9/9/index")]
    for name in (*foreign, *(f"{address}/rows/{SET}/{part}" for part in ("", "README", ".1", "a.b", "x/y.1"))):
        put_object(server, name)
    first = carrier(tmp_path / "here", bucket, token=1)
    first.bring()
    write_checkpoint(tmp_path / "here", 10)
    rows = tmp_path / "here" / ".rows" / SET
    rows.mkdir(parents=True)
    (rows / "a.jsonl").write_text("{}\n")
    first.send()
    carrier(tmp_path / "there", bucket, token=2).bring()
    assert newest(tmp_path / "there") == 10
    assert [file.name for file in (tmp_path / "there" / ".rows" / SET).iterdir()] == ["a.0.jsonl"]
    forget_before(bucket, KEY, token=2)
    assert "1/index" not in bucket.list(f"unfinished/{KEY[0]}/{KEY[1]}")


@pytest.mark.parametrize("occupy", [os.mkfifo, os.mkdir])
def test_a_place_of_the_token_that_is_occupied_stops_nothing(
    bucket: Bucket, tmp_path: Path, occupy: Callable[[Path], None]
) -> None:
    carrier(tmp_path, bucket, token=1).bring()
    write_checkpoint(tmp_path, 10)
    carrier(tmp_path, bucket, token=1).send()
    [token] = (tmp_path / ".shared" / "carried").iterdir()
    token.unlink()
    occupy(token)
    carrier(tmp_path, bucket, token=2).bring()
    assert newest(tmp_path) == 10
    assert token.read_text() == "2"
