"""What the store's keeper knows of quantized base models: which it keeps, removes and leaves alone."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
from filelock import FileLock

from ernie_pipeline.cli.store import render_contents, render_damage, render_pruned
from ernie_pipeline.store.artifacts import ArtifactStore
from ernie_pipeline.store.housekeeping import artifacts as housekeeping
from ernie_pipeline.store.housekeeping import quantized_bases as bases
from ernie_pipeline.store.housekeeping.disk_usage import size_of
from ernie_pipeline.store.housekeeping.quantized_bases import Bases, Interrupted, QuantizedBase
from ernie_pipeline.store.quantized_base import FOLDER, MANIFEST, MadeOf, made_of
from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline_tests.staleness.chains import OBSERVED, chain_of, tree, walk
from ernie_pipeline_tests.store.bases import QUANTIZATION, quantized_base

WANTED, OTHER = "sha256:0123456789abcdef0123", "commit:00112233445566778899"


def asked() -> MadeOf:
    return made_of(WANTED, QUANTIZATION)


def stock(store: ArtifactStore, ask: Callable[[], MadeOf | None] = asked) -> housekeeping.Contents:
    return housekeeping.take_stock(store, {}, {}, bases.take_stock(store.root, ask))


def kept(contents: housekeeping.Contents) -> dict[str, tuple[str, ...]]:
    return {base.key: base.needed_for for base in contents.bases.quantized}


def half_quantized(root: Path, key: str, number: int = 0) -> Path:
    folder = root / FOLDER / f".{key}.0123abc{number}"
    folder.mkdir(parents=True)
    (folder / "layer-000.safetensors").write_bytes(bytes(512))
    return folder


@pytest.fixture
def two(store: ArtifactStore) -> tuple[Path, Path]:
    """The one that the recipe asks for, and another."""
    return quantized_base(store.root, WANTED), quantized_base(store.root, OTHER)


def test_each_is_listed_with_what_it_is_of_and_why_it_is_kept(store: ArtifactStore, two: tuple[Path, Path]) -> None:
    wanted, other = two
    contents = stock(store)
    of = {wanted.name: WANTED, other.name: OTHER}
    why = {wanted.name: ("asked for by the recipe",), other.name: ()}
    assert contents.bases.quantized == tuple(
        QuantizedBase(key, size_of(store.root / FOLDER / key), of[key], QUANTIZATION, why[key]) for key in sorted(of)
    )
    lines = render_contents(contents).splitlines()
    assert lines[0] == "There is no artifact in the store."
    [row] = [line for line in lines if line.startswith(wanted.name)]
    assert " ".join(row.split()) == (
        f"{wanted.name} sha256:0123456789abcdef bits 4, compute_dtype bfloat16, double true, type nf4 1.1 KiB "
        "asked for by the recipe"
    )
    assert lines[-1] == ('Quantized base models: 2, 2.1 KiB. Nothing needs 1 of them, 1.1 KiB: "ernie store prune".')
    assert json.loads(json.dumps(contents.as_json()))["bases"]["quantized"][0]["key"] == min(of)


def test_another_quantization_format_or_library_is_not_asked_for(store: ArtifactStore) -> None:
    libraries = asked()["libraries"]
    for changes in (
        {"quantization": QUANTIZATION | {"double": False}},
        {"format": 0},
        {"libraries": libraries | {"bitsandbytes": "0.1"}},
    ):
        quantized_base(store.root, WANTED, **changes)
    assert list(kept(stock(store)).values()) == [(), (), ()]


def test_where_the_library_that_packs_is_not_installed_any_version_of_it_is_kept(store: ArtifactStore) -> None:
    libraries = asked()["libraries"]
    quantized_base(store.root, WANTED, libraries=libraries | {"unsloth": "2026.10.7"})

    def here(unsloth: str) -> MadeOf:
        return asked() | {"libraries": libraries | {"unsloth": unsloth}}

    assert list(kept(stock(store, lambda: here(""))).values()) == [("asked for by the recipe",)]
    assert list(kept(stock(store, lambda: here("2026.10.8"))).values()) == [()]


def test_a_recipe_whose_engine_packs_none_asks_for_none(store: ArtifactStore, two: tuple[Path, Path]) -> None:
    assert list(kept(stock(store, lambda: None)).values()) == [(), ()]


def test_while_the_source_cannot_be_resolved_all_are_kept_and_a_note_says_so(
    store: ArtifactStore, two: tuple[Path, Path]
) -> None:
    def ask() -> MadeOf:
        raise PipelineError("the hub did not answer for base model someone/ernie")

    left = half_quantized(store.root, two[0].name)
    contents = stock(store, ask)
    assert set(kept(contents).values()) == {("perhaps asked for by the recipe",)}
    note = "the hub did not answer for base model someone/ernie; so every quantized base model is kept"
    assert render_contents(contents).endswith(f"\nnote: {note}")
    pruned = housekeeping.prune(store, contents, delete=True)
    assert (pruned.bases.quantized, pruned.bases.notes) == ((), (note,))
    assert render_pruned(pruned).endswith(f"\nnote: {note}")
    assert two[0].is_dir()
    assert two[1].is_dir()
    assert not left.exists()


def test_without_a_quantized_base_no_source_is_asked(store: ArtifactStore) -> None:
    assert stock(store, pytest.fail).bases == Bases()
    assert housekeeping.prune(store, stock(store, pytest.fail), delete=True).size == 0
    assert not store.root.exists()


def test_a_dry_run_says_what_would_go_and_changes_nothing(store: ArtifactStore, two: tuple[Path, Path]) -> None:
    half_quantized(store.root, two[0].name)
    half_quantized(store.root, "f00d")
    before, size = tree(store.root), size_of(two[1])
    pruned = housekeeping.prune(store, stock(store))
    assert tree(store.root) == before
    assert pruned.bases.quantized == (QuantizedBase(two[1].name, size, OTHER, QUANTIZATION),)
    assert set(pruned.bases.interrupted) == {Interrupted(two[0].name, 512), Interrupted("f00d", 512)}
    assert (pruned.deleted, pruned.size) == (False, size + 1024)
    lines = render_pruned(pruned).splitlines()
    assert lines[0] == f"quantized base model {two[1].name}  1.1 KiB"
    assert "quantized base model f00d, left by an unfinished quantization  512 B" in lines
    assert lines[-1] == f"Nothing was removed. These are {(size + 1024) / 1024:.1f} KiB; --delete removes them."
    assert json.loads(json.dumps(asdict(pruned)))["bases"]["interrupted"]


def test_deleting_keeps_what_the_recipe_asks_for(store: ArtifactStore, two: tuple[Path, Path]) -> None:
    half_quantized(store.root, two[0].name, 0)
    half_quantized(store.root, two[0].name, 1)
    before = tree(two[0])
    pruned = housekeeping.prune(store, stock(store), delete=True)
    assert ([base.key for base in pruned.bases.quantized], pruned.bases.notes) == ([two[1].name], ())
    assert pruned.bases.interrupted == (Interrupted(two[0].name, 1024),)
    assert sorted(path.name for path in (store.root / FOLDER).iterdir() if path.is_dir()) == [two[0].name]
    assert tree(two[0]) == before
    assert render_pruned(housekeeping.prune(store, stock(store), True)) == "There is nothing to remove."


def test_what_another_holds_is_left_alone_and_named(store: ArtifactStore, two: tuple[Path, Path]) -> None:
    left = half_quantized(store.root, "f00d")
    with FileLock(f"{two[1]}.lock"), FileLock(two[1].with_name("f00d.lock")):
        for delete in (False, True):
            pruned = housekeeping.prune(store, stock(store), delete)
            assert (pruned.bases.quantized, pruned.bases.interrupted, pruned.size) == ((), (), 0)
            assert set(pruned.bases.notes) == {
                f"quantized base model {key} is left alone: another process has its lock"
                for key in (two[1].name, "f00d")
            }
    assert two[1].is_dir()
    assert left.is_dir()
    assert housekeeping.prune(store, stock(store), delete=True).bases.notes == ()
    assert not two[1].exists()
    assert not left.exists()


def test_a_damaged_one_is_named_with_what_becomes_of_it(store: ArtifactStore, two: tuple[Path, Path]) -> None:
    assert housekeeping.verify(store) == []
    assert render_damage([]) == "Everything is intact."
    file = two[1] / "layer-001.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    half_quantized(store.root, "f00d")
    [damage] = housekeeping.verify(store)
    assert render_damage([damage]).splitlines() == [
        f"quantized base model {two[1].name}: altered: layer-001.safetensors",
        "",
        "A damaged base model is quantized anew by the next process that uses it.",
    ]


@pytest.mark.parametrize("broken", ["no manifest", "half a manifest", "a file for a folder"])
def test_one_without_a_manifest_is_listed_and_kept_only_if_its_name_is_asked_for(
    store: ArtifactStore, two: tuple[Path, Path], broken: str
) -> None:
    for folder in two:
        (folder / MANIFEST).unlink()
        if broken == "half a manifest":
            (folder / MANIFEST).write_text('{"made_of": ')
        elif broken == "a file for a folder":
            for file in folder.iterdir():
                file.unlink()
            folder.rmdir()
            folder.touch()
    assert len(housekeeping.verify(store)) == 2
    contents = stock(store)
    render_contents(contents)
    assert kept(contents) == {two[0].name: ("asked for by the recipe",), two[1].name: ()}
    assert [base.key for base in housekeeping.prune(store, contents, delete=True).bases.quantized] == [two[1].name]
    assert two[0].exists()
    assert not two[1].exists()


def test_nothing_else_in_the_store_takes_them_for_artifacts(store: ArtifactStore, two: tuple[Path, Path]) -> None:
    half_quantized(store.root, "f00d")
    before = tree(store.root / FOLDER)
    chain = chain_of(store, base_model=OBSERVED["base_model"])
    walk(chain)
    contents = stock(store)
    assert FOLDER not in store.stages()
    assert (store.all_unfinished(), contents.half_written, len(contents.artifacts)) == ([], (), len(chain.stages))
    assert contents.as_json()["size"] == sum(entry.size for entry in contents.artifacts)
    assert tree(store.root / FOLDER) == before
