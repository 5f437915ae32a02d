import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ernie_pipeline.store.artifacts import Artifact, ArtifactStore, Check, Provenance
from ernie_pipeline.utils.errors import PipelineError

MADE_FROM = Provenance("math_split", "f00d", "c0de", {"raw_nemotron": "1234"}, {"split": {"seed": 1}}, {"polars": "1"})

Write = Callable[[Path], None]


def writer(rows: bytes = b"rows", report: bytes = b"report", name: str = "train.parquet") -> Write:
    def write(out: Path) -> None:
        (out / "nested").mkdir()
        (out / "nested" / name).write_bytes(rows)
        (out / "empty.json").write_bytes(b"")
        (out / "reports").mkdir()
        (out / "reports" / "profile.json").write_bytes(report)

    return write


def found(store: ArtifactStore) -> Artifact | None:
    return store.find("math_split", "f00d")[0]


def left(store: ArtifactStore) -> list[str]:
    """What is in the stage's folder, hidden names too."""
    return sorted(path.name for path in (store.root / "math_split").iterdir())


def test_what_is_built_is_found_intact(store: ArtifactStore) -> None:
    assert store.find("math_split", "f00d") == (None, "not built yet")
    built = store.build(MADE_FROM, writer())
    again = found(store)
    assert again is not None
    assert (built.reused, again.reused) == (False, True)
    assert again.manifest == built.manifest
    assert again.manifest["inputs"] == {"raw_nemotron": "1234"}
    assert (again.folder / "nested" / "train.parquet").read_bytes() == b"rows"
    assert left(store) == ["f00d"]


def test_the_data_version_covers_names_and_bytes_and_no_reports(store: ArtifactStore) -> None:
    version = store.build(MADE_FROM, writer()).data_version
    assert store.build(MADE_FROM, writer(report=b"another")).data_version == version
    assert store.build(MADE_FROM, writer(rows=b"rowS")).data_version != version
    assert store.build(MADE_FROM, writer(name="eval.parquet")).data_version != version


def flip_one_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[0] ^= 1
    file.write_bytes(bytes(content))


@pytest.mark.parametrize(
    ("name", "damage", "reason"),
    [
        ("nested/train.parquet", flip_one_bit, "artifact altered: nested/train.parquet"),
        ("nested/train.parquet", lambda f: os.truncate(f, 3), "artifact altered: nested/train.parquet"),
        ("nested/train.parquet", Path.unlink, "artifact altered: nested/train.parquet is missing"),
        ("reports/profile.json", flip_one_bit, "artifact altered: reports/profile.json"),
        ("empty.json", lambda f: f.write_text("{}"), "artifact altered: empty.json"),
        ("manifest.json", Path.unlink, "artifact altered: manifest.json is missing"),
        ("manifest.json", lambda f: (f.unlink(), f.mkdir()), "artifact altered: manifest.json is not readable"),
        ("manifest.json", lambda f: os.truncate(f, 60), "artifact altered: manifest.json is not readable"),
        ("manifest.json", lambda f: f.write_bytes(b"\xff\xfe"), "artifact altered: manifest.json is not readable"),
        ("manifest.json", lambda f: f.write_text("[]"), "artifact altered: manifest.json is not readable"),
        ("manifest.json", lambda f: f.write_text('{"files": []}'), "artifact altered: manifest.json is not readable"),
        ("manifest.json", lambda f: f.write_text('{"files": {}}'), "artifact altered: manifest.json is not readable"),
    ],
)
def test_a_damaged_artifact_is_not_found_and_built_again(
    store: ArtifactStore, name: str, damage: Callable[[Path], object], reason: str
) -> None:
    built = store.build(MADE_FROM, writer())
    damage(built.folder / name)
    assert store.find("math_split", "f00d") == (None, reason)
    rebuilt = store.build(MADE_FROM, writer(), note=reason)
    assert (rebuilt.data_version, rebuilt.note) == (built.data_version, reason)
    assert found(store) is not None
    assert left(store) == ["f00d"]


@pytest.mark.parametrize(
    "change",
    [
        {"data_version": "0123456789abcdef"},
        {"seconds": 0.25},
        {"inputs": {"raw_nemotron": "1235"}},
        {"recipe": {"split": {"seed": 2}}},
        {"checks": [{"name": "sizes", "passed": True, "description": "", "blocking": True}]},
        {"built": "2020-01-01T00:00:00.000+00:00"},
        {"files": {}},
        {"more": 1},
    ],
)
def test_a_changed_value_of_the_manifest_is_noticed(store: ArtifactStore, change: dict[str, Any]) -> None:
    file = store.build(MADE_FROM, failing).folder / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change, indent=1, sort_keys=True) + "\n")
    assert store.find("math_split", "f00d") == (None, "artifact altered: manifest.json")


def failing(out: Path) -> list[Check]:
    writer()(out)
    return [Check("sizes", False, "too few rows")]


def test_a_flipped_bit_anywhere_in_the_manifest_is_noticed(store: ArtifactStore) -> None:
    file = store.build(MADE_FROM, writer()).folder / "manifest.json"
    intact = file.read_bytes()
    for place in range(len(intact)):
        file.write_bytes(intact[:place] + bytes([intact[place] ^ 1]) + intact[place + 1 :])
        assert found(store) is None, f"byte {place} of {intact!r}"
    for other in (intact.replace(b" ", b"\n", 1), intact.replace(b"\n", b"\r\n"), intact[:-1], intact + b"\n"):
        file.write_bytes(other)
        assert found(store) is None, "it means the same, but somebody wrote to it"
    file.write_bytes(intact)
    assert found(store) is not None


def test_an_artifact_in_the_place_of_another_is_altered(store: ArtifactStore) -> None:
    folder = store.build(MADE_FROM, writer()).folder
    folder.rename(folder.with_name("0f0f"))
    assert store.find("math_split", "0f0f") == (None, "artifact altered: manifest.json")


def test_a_file_or_a_dead_link_in_the_place_of_the_artifact_is_replaced(store: ArtifactStore) -> None:
    place = store.folder("math_split", "f00d")
    place.parent.mkdir(parents=True)
    for obstruct in (Path.touch, lambda place: place.symlink_to("nowhere")):
        obstruct(place)
        assert store.find("math_split", "f00d") == (None, "artifact altered: it is no folder")
        store.build(MADE_FROM, writer())
        assert found(store) is not None
        assert left(store) == ["f00d"]
        store.remove("math_split", "f00d")
        assert left(store) == []


def test_the_checks_are_kept_with_the_artifact(store: ArtifactStore) -> None:
    warned = Check("gate", False, "not better", blocking=False)
    artifact = store.build(MADE_FROM, lambda out: [warned])
    assert (artifact.checks, artifact.failed_check) == ([warned], "")
    store.build(MADE_FROM, failing)
    again = found(store)
    assert again is not None
    assert again.failed_check == "check sizes failed: too few rows"


def test_what_else_lies_in_the_store_is_no_artifact(store: ArtifactStore) -> None:
    store.build(MADE_FROM, writer())
    (store.root / "math_split" / "notes.txt").touch()
    (store.root / "math_split" / "backup").mkdir()
    (store.root / "math_split" / ".DS_Store").touch()
    (store.root / "file").touch()
    assert (store.stages(), store.fingerprints("math_split")) == (["math_split"], ["f00d"])
    assert (store.fingerprints("file"), store.temporary("math_split"), store.temporary("file")) == ([], {}, {})


@pytest.mark.parametrize("error", [ValueError("in the middle"), KeyboardInterrupt()])
def test_an_error_while_writing_leaves_nothing(store: ArtifactStore, error: BaseException) -> None:
    def write(out: Path) -> None:
        writer()(out)
        raise error

    with pytest.raises(type(error)):
        store.build(MADE_FROM, write)
    assert left(store) == []


def test_an_error_while_writing_leaves_the_artifact_that_stood_there(store: ArtifactStore) -> None:
    store.build(MADE_FROM, writer())
    with pytest.raises(FileExistsError):
        store.build(MADE_FROM, lambda out: out.mkdir())
    assert found(store) is not None
    assert left(store) == ["f00d"]


KILLED = """
import sys, time
from pathlib import Path
from ernie_pipeline.store.artifacts import ArtifactStore, Provenance

def write(out):
    (out / "train.parquet").write_bytes(b"half")
    print("writing", flush=True)
    time.sleep(60)

ArtifactStore(Path(sys.argv[1])).build(Provenance("math_split", "f00d", "", {}, {}), write)
"""


def test_a_killed_build_leaves_no_artifact_and_the_next_one_sweeps_up(store: ArtifactStore) -> None:
    child = subprocess.Popen([sys.executable, "-c", KILLED, str(store.root)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "writing\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    assert store.find("math_split", "f00d") == (None, "not built yet")
    assert len(left(store)) == 1, "the killed build was to leave its folder half-written"
    assert {f: [p.name for p in paths] for f, paths in store.temporary("math_split").items()} == {"f00d": left(store)}
    store.build(MADE_FROM, writer())
    assert left(store) == ["f00d"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    try:
        mounted = subprocess.run(mount, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("a full disk needs a small file system, and there is no mount command here")
    if mounted.returncode:
        pytest.skip(f"a full disk needs a small file system, and none can be mounted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def plain_bytes(out: Path) -> None:
    (out / "rows").write_bytes(bytes(2**21))


def many_files(out: Path) -> None:
    """Until not even the manifest fits."""
    for number in range(2**20 // 4096):
        (out / str(number)).write_bytes(bytes(4096))


def polars_parquet(out: Path) -> None:
    import polars as pl

    pl.DataFrame({"bytes": [os.urandom(2**21)]}).write_parquet(out / "rows.parquet")


def arrow_parquet(out: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"bytes": [os.urandom(2**21)]}), out / "rows.parquet")


def torch_safetensors(out: Path) -> None:
    import torch
    from safetensors.torch import save_file

    save_file({"weight": torch.zeros(2**19)}, out / "adapter.safetensors")


@pytest.mark.parametrize("write", [plain_bytes, many_files, polars_parquet, arrow_parquet, torch_safetensors])
def test_a_full_disk_is_one_sentence_and_leaves_nothing(small_disk: Path, write: Write) -> None:
    store = ArtifactStore(small_disk)
    with pytest.raises(PipelineError, match=r"^math_split: the disk that holds .* is full; make room") as caught:
        store.build(MADE_FROM, write)
    assert "\n" not in str(caught.value)
    assert left(store) == []
    store.build(MADE_FROM, writer())
    assert found(store) is not None, "what was half-written still fills the disk"
