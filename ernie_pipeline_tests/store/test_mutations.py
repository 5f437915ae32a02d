"""Thirty stores, each altered at random (as two hundred were once): no altered artifact is reused, and nothing fails.

A mutation hits any file or folder of a small store: artifacts, manifests, locks, histories, pins, kept rows, unfinished
builds and a quantized base model.
"""

import json
import os
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ernie_pipeline.staleness.plan import asked_for, make_plan
from ernie_pipeline.store.artifacts import ArtifactStore
from ernie_pipeline.store.housekeeping import artifacts as housekeeping
from ernie_pipeline.store.housekeeping import kept_rows, quantized_bases
from ernie_pipeline.store.pins import Pins
from ernie_pipeline.store.quantized_base import damage
from ernie_pipeline.store.row_cache import KeptRows, open_rows
from ernie_pipeline.store.sealed import write_sealed
from ernie_pipeline_tests.staleness.chains import chain_of, constant, walk
from ernie_pipeline_tests.store.bases import quantized_base

SEEDS = range(30)
JSON_VALUES = (None, 0, "", [], {}, "../../x", {"a": {"b": []}}, 1e400, True)


def flip(place: Path, chance: random.Random) -> None:
    content = bytearray(place.read_bytes() or b"\0")
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    place.write_bytes(content)


def cut(place: Path, chance: random.Random) -> None:
    os.truncate(place, chance.randrange(place.stat().st_size + 1))


def extend(place: Path, chance: random.Random) -> None:
    place.write_bytes(place.read_bytes() + chance.randbytes(chance.randrange(1, 9)))


def nest(place: Path, chance: random.Random) -> None:
    place.write_bytes(b"[" * 50_000 + b"]" * 50_000)


def edit(place: Path, chance: random.Random) -> None:
    """Another value somewhere in a JSON object, sealed again half of the time."""
    try:
        values = json.loads(place.read_bytes().splitlines()[0] if place.suffix == ".jsonl" else place.read_bytes())
        values[chance.choice(sorted(values))] = chance.choice(JSON_VALUES)
    except (ValueError, TypeError, IndexError):
        return extend(place, chance)
    if place.suffix == ".jsonl" or chance.random() < 0.5:
        place.write_text(json.dumps(values) + "\n")
    else:
        write_sealed(place, {name: value for name, value in values.items() if name != "seal"})


def delete(place: Path, chance: random.Random) -> None:
    shutil.rmtree(place) if place.is_dir() else place.unlink()


def add(place: Path, chance: random.Random) -> None:
    folder = place if place.is_dir() else place.parent
    (folder / chance.choice(["model.bin", "a.py", ".x", "\udcff", "new\nline"])).write_bytes(b"1")


def replaced_by(make: Callable[[Path], object]) -> Callable[[Path, random.Random], None]:
    def replace(place: Path, chance: random.Random) -> None:
        delete(place, chance)
        make(place)

    return replace


def exchange(place: Path, chance: random.Random) -> None:
    """With another of the same folder, or a copy of one, where there is one."""
    others = [other for other in sorted(place.parent.iterdir()) if other != place and not other.name.startswith(".l")]
    if others:
        other, between = chance.choice(others), place.with_name("between")
        place.rename(between)
        other.rename(place)
        between.rename(other)


MUTATIONS: tuple[Callable[[Path, random.Random], None], ...] = (
    *(flip, cut, extend, nest, edit, edit, delete, add, exchange),
    replaced_by(lambda place: place.mkdir()),
    replaced_by(os.mkfifo),
    replaced_by(lambda place: place.symlink_to("/etc/hostname")),
    replaced_by(lambda place: place.symlink_to("nowhere")),
    replaced_by(lambda place: place.symlink_to(place.name)),
    replaced_by(lambda place: place.write_bytes(b"")),
)
OF_FILES = (flip, cut, extend, nest, edit)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("template") / "store"
    store = ArtifactStore(root)
    chain = chain_of(store)
    walk(chain)
    kept = store.unfinished("qlora_adapter", chain.provenance("qlora_adapter").fingerprint)
    (kept / "checkpoints").mkdir(parents=True)
    (kept / "checkpoints" / "state").write_text("1")
    Pins(root, "run").pin("source", lambda: "v1")
    with open_rows(KeptRows(folder=root / ".rows" / "f00d", about={"of": "this"})) as rows:
        rows.keep("one", [1, 2])
    quantized_base(root, "sha256:1")
    return root


@pytest.fixture
def in_time() -> Iterator[None]:
    """Whoever opens a pipe waits for ever."""

    def late(*_: object) -> None:
        raise TimeoutError("it waits for something")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def state(root: Path) -> dict[str, tuple[object, ...]]:
    """Every path with all that a write to it would change."""
    found: dict[str, tuple[object, ...]] = {}
    for folder, *names in os.walk(root):
        for name in (".", *names[0], *names[1]):
            entry = os.lstat(Path(folder, name))
            found[str(Path(folder, name))] = (entry.st_mode, entry.st_ino, entry.st_size, entry.st_mtime_ns)
    return found


def mutate(root: Path, chance: random.Random) -> str:
    """One mutation somewhere; what it was."""
    places = [path for path in sorted(root.rglob("*")) if not path.is_symlink() and (path.is_file() or path.is_dir())]
    place, mutation = chance.choice(places), chance.choice(MUTATIONS)
    if mutation in OF_FILES and not place.is_file():
        mutation = delete
    mutation(place, chance)
    return f"{getattr(mutation, '__qualname__', mutation)} of {place.relative_to(root)}"


def contents(folder: Path) -> dict[str, object]:
    """What whoever reads an artifact may find in it; not what its manifest says besides, which may be sealed again."""
    found: dict[str, object] = {}
    for path in folder.rglob("*"):
        if path.is_symlink() or not path.is_dir():
            is_file = path.is_file() and not path.is_symlink()
            found[str(path.relative_to(folder))] = path.read_bytes() if is_file else "no file"
    found.pop("manifest.json", None)
    return found


def look(store: ArtifactStore) -> None:
    """All that `plan`, `store list`, `store verify` and `store prune` read."""
    chain = chain_of(store)
    plan = make_plan(chain)
    quantized = quantized_bases.take_stock(store.root, lambda: None)
    rows = kept_rows.take_stock(store.root, None)
    found = housekeeping.take_stock(store, asked_for(chain, plan), {}, quantized, "", rows)
    json.dumps(found.as_json())
    housekeeping.verify(store)
    housekeeping.prune(store, found)


@pytest.mark.parametrize("seed", SEEDS)
def test_an_altered_store(template: Path, tmp_path: Path, seed: int, in_time: None) -> None:
    chance = random.Random(seed)
    root = tmp_path / "store"
    shutil.copytree(template, root, copy_function=shutil.copy2)
    store = ArtifactStore(root)
    keys = [(name, fingerprint) for name in store.stages() for fingerprint in store.fingerprints(name)]
    intact = {key: contents(store.folder(*key)) for key in keys}
    told = [mutate(root, chance) for _ in range(chance.choice([1, 1, 2, 3]))]

    before = state(root)
    look(store)
    assert state(root) == before, told  # nothing was written

    for key in keys:
        if store.find(*key)[0]:
            assert contents(store.folder(*key)) == intact[key], told
    for base in (root / ".bases").glob("[!.]*/"):
        if damage(base) == "":
            assert contents(base) == contents(template / ".bases" / base.name), told

    walk(chain_of(store), raw_nemotron=constant)
    assert make_plan(chain_of(store)).fresh, told
    assert Pins(root, "run").pin("source", lambda: "v2") in ("v1", "v2")
    with open_rows(KeptRows(folder=root / ".rows" / "f00d")) as rows:
        assert rows.get("one") in (None, [1, 2]), told
        rows.keep("two", [3])
    look(store)
    housekeeping.prune(store, housekeeping.take_stock(store, {}, {}), delete=True)
